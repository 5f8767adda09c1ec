"""Values of an LMDB database by key, read without the library: no damaged file can end the process.

The library maps the file into memory and follows whatever page numbers it holds; one beyond the end of the
file kills the process. Here every page is read and checked. The layout is that of LMDB 0.9 (lmdb.h, mdb.c):
two pages of meta data, then a B+ tree whose leaves hold keys and values, or the page where a long value lies.
"""

import os
import struct
import weakref
from bisect import bisect_left, bisect_right
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from facescale.data.readers.base import BadRecordError
from facescale.guard.reading import check_file, reading

_META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_PAGE = struct.Struct("<Q2xHHH")  # number, what it is, end of the list of places, start of the nodes
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_NODE = struct.Struct("<HHHH")  # page or length of the value (low, high), flags or page, length of the key
_LONG, _PLAIN = 1, 0  # flags of a node: the value is on pages of its own; it follows the key
_DB = struct.Struct("<IHHQQQQQ")  # size of a page, flags, depth, three counts of pages, entries, root
_META_BYTES = _PAGE.size + _META.size + 2 * _DB.size + 16
_NO_PAGE = 2**64 - 1
_DEEPEST = 32  # levels of a tree; 2**64 entries need fewer


class _Tree(NamedTuple):
    """Where the values are.

    Attributes:
        page_size: bytes.
        root: page of the tree's root.
        entries: number of values.
        flags: another order of keys than that of their bytes, or several values of a key.
        last: number of the last page.
        transaction: that wrote it.
    """

    page_size: int
    root: int
    entries: int
    flags: int
    last: int
    transaction: int


class LmdbFile:
    """The values of a database by key, for any number of threads and processes.

    Raises:
        ValueError: this is not a complete LMDB database, or one of another order of keys.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / "data.mdb" if path.is_dir() else path
        self._tree, self._size = _tree_of(self.path)
        self._fd: int | None = None
        self._lock = Lock()

    def __len__(self) -> int:
        """Number of values."""
        return self._tree.entries

    def __getitem__(self, key: bytes) -> bytes:
        """The value of ``key``.

        Raises:
            BadRecordError: there is no such key, or the database is damaged.
        """
        try:
            value = self._find(key)
        except (struct.error, OSError, _DamagedError) as error:
            raise BadRecordError(f"cannot read '{self.path}': {error}") from error
        if value is None:
            raise BadRecordError(f"'{self.path}' has no key '{os.fsdecode(key)}'")
        return value

    def _find(self, key: bytes) -> bytes | None:
        number = self._tree.root
        for _ in range(_DEEPEST if number != _NO_PAGE else 0):
            page, kind, places = self._page(number)

            def key_at(place: int, page: bytes = page) -> bytes:
                start = place + _NODE.size
                return page[start : start + _NODE.unpack_from(page, place)[3]]

            if kind == _LEAF:
                at = bisect_left(places, key, key=key_at)
                found = at < len(places) and key_at(places[at]) == key
                return self._value(page, places[at]) if found else None
            # The first key of a branch is not stored: it is lower than all
            at = bisect_right(places, key, lo=1, key=key_at) - 1
            low, high, top, _ = _NODE.unpack_from(page, places[at])
            number = low | high << 16 | top << 32
        if self._tree.root == _NO_PAGE:
            return None
        raise _DamagedError("its tree has no end")

    def _page(self, number: int) -> tuple[bytes, int, tuple[int, ...]]:
        """A page of the tree: its bytes, branch or leaf, and the places of its nodes."""
        page = self._read(number, self._tree.page_size)
        own, flags, lower, _ = _PAGE.unpack_from(page)
        count, kind = (lower - _PAGE.size) // 2, flags & (_BRANCH | _LEAF)
        whole = own == number and _PAGE.size <= lower <= len(page)
        if not whole or kind not in (_BRANCH, _LEAF) or (kind == _BRANCH and not count):
            raise _DamagedError(f"page {number} is damaged")
        return page, kind, struct.unpack_from(f"<{count}H", page, _PAGE.size)

    def _value(self, page: bytes, place: int) -> bytes:
        low, high, flags, key_size = _NODE.unpack_from(page, place)
        size, start = low | high << 16, place + _NODE.size + key_size
        if flags == _PLAIN:
            value = page[start : start + size]
        elif flags == _LONG:
            (number,) = struct.unpack_from("<Q", page, start)
            whole = self._read(number, _PAGE.size + size)
            own, kind, *_ = _PAGE.unpack_from(whole)
            if own != number or not kind & _OVERFLOW:
                raise _DamagedError(f"page {number} is damaged")
            value = whole[_PAGE.size :]
        else:
            raise _DamagedError("a key has several values")
        if len(value) != size:
            raise _DamagedError("a value leaves its page")
        return value

    def _read(self, number: int, size: int) -> bytes:
        """Bytes from the start of a page on."""
        start = number * self._tree.page_size
        if start + size > self._size:
            raise _DamagedError(f"page {number} lies beyond its end")
        data = os.pread(self._file(), size, start)
        if len(data) != size:
            raise _DamagedError(f"page {number} is cut short")
        return data

    def _file(self) -> int:
        """The open file; processes that were forked share it, as reads name their place."""
        with self._lock:
            if self._fd is None:
                self._fd = os.open(self.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
                weakref.finalize(self, os.close, self._fd)
            return self._fd

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fd": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = Lock()


class _DamagedError(Exception):
    """What is wrong with a database."""


def _tree_of(path: Path) -> tuple[_Tree, int]:
    """The tree of a database as its last transaction left it, and the bytes of the file.

    Raises:
        ValueError: no database, one that lost its end, or one of another order of keys.
    """
    size = check_file(path, "the database")
    with reading(path, "the database"), path.open("rb", buffering=0) as file:
        first = file.read(1 << 16)
    page_size = _page_size(first)
    if not page_size or page_size + _META_BYTES > len(first):
        raise ValueError(f"'{path}' is not an LMDB database; give its folder, or the file data.mdb")
    trees = [_meta(first[start:]) for start in (0, page_size) if _page_size(first[start:]) == page_size]
    last = max(tree.last for tree in trees)
    if (last + 1) * page_size > size:
        raise ValueError(
            f"'{path}' has {size:,} bytes, and its pages take {(last + 1) * page_size:,}; it is truncated, "
            "copy it again"
        )
    tree = max(trees, key=lambda one: one.transaction)
    if tree.flags:
        raise ValueError(
            f"'{path}' orders its keys in a way of its own (flags {tree.flags}), or has several values of a "
            "key; copy it into a plain LMDB database"
        )
    return tree, size


def _page_size(meta: bytes) -> int:
    """Bytes of a page, from a page of meta data; 0 where it is none."""
    if len(meta) < _META_BYTES or _META.unpack_from(meta, _PAGE.size)[:2] != (_MAGIC, _VERSION):
        return 0
    page = int(struct.unpack_from("<I", meta, _PAGE.size + _META.size)[0])
    return page if 256 <= page <= 1 << 15 and page & (page - 1) == 0 else 0


def _meta(page: bytes) -> _Tree:
    start = _PAGE.size + _META.size
    (page_size, *_), main = _DB.unpack_from(page, start), _DB.unpack_from(page, start + _DB.size)
    last, transaction = struct.unpack_from("<QQ", page, start + 2 * _DB.size)
    return _Tree(page_size, main[7], main[6], main[1], last, transaction)
