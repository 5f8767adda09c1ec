"""An LMDB database of images, opened once per process whoever reads it."""

import os
import struct
import weakref
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from facescale.data.readers.base import BadRecordError
from facescale.guard.reading import check_file, reading

_META = struct.Struct("<IIQQ")  # magic, version, address, size of the map
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_HEADER = 16  # bytes of a page's header
_DB = 48  # bytes of a database's record; the first number of the first is the size of a page
_META_BYTES = _HEADER + _META.size + 2 * _DB + 16


class _Environment:
    """An open database; closed when the last reader of it is gone.

    Attributes:
        process: that opened it; another one must not use it.
    """

    def __init__(self, path: Path) -> None:
        try:
            import lmdb
        except ImportError:
            raise ValueError(
                "an LMDB data set needs the package lmdb; install it with: pip install 'facescale[lmdb]'"
            ) from None
        try:
            self.database = lmdb.open(str(path), subdir=False, readonly=True, lock=False, readahead=False)
        except lmdb.Error as error:
            raise ValueError(f"'{path}' cannot be opened as an LMDB database: {error}") from None
        self.process = os.getpid()
        self.close = weakref.finalize(self, self.database.close)


class LmdbFile:
    """The values of a database by key, for any number of threads; reopened in another process.

    LMDB maps its file into memory, so that a file that lost its end would stop the process: its size is
    compared with that of its pages first.

    Raises:
        ValueError: the package lmdb is missing, or this is no whole LMDB database.
    """

    # LMDB allows a file to be open once in a process, so readers of one file share it.
    _shared: ClassVar[weakref.WeakValueDictionary[str, _Environment]] = weakref.WeakValueDictionary()
    _locks: ClassVar[dict[int, Lock]] = {}  # by process: one that was forked may inherit a taken lock

    def __init__(self, path: Path) -> None:
        self.path = path / "data.mdb" if path.is_dir() else path
        check_whole(self.path)
        self._opened: _Environment | None = None
        self._environment()

    def __getitem__(self, key: bytes) -> bytes:
        """The value of ``key``.

        Raises:
            BadRecordError: there is no such key, or the database is damaged.
        """
        import lmdb

        try:
            with self._environment().database.begin() as transaction:
                value: bytes | None = transaction.get(key)
        except lmdb.Error as error:
            raise BadRecordError(f"cannot read '{self.path}': {error}") from error
        if value is None:
            raise BadRecordError(f"'{self.path}' has no key '{os.fsdecode(key)}'")
        return value

    def __len__(self) -> int:
        """Number of values."""
        return int(self._environment().database.stat()["entries"])

    def _environment(self) -> _Environment:
        opened, process = self._opened, os.getpid()
        if opened is not None and opened.process == process:
            return opened
        with self._locks.setdefault(process, Lock()):
            for path, inherited in list(self._shared.items()):
                if inherited.process != process:
                    inherited.close()
                    self._shared.pop(path, None)
            place = os.path.realpath(self.path)
            opened = self._shared.get(place) or _Environment(self.path)
            self._shared[place] = self._opened = opened
        return opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}


def check_whole(path: Path) -> None:
    """Make sure that a file is an LMDB database with all its pages.

    Raises:
        ValueError: it is not.
    """
    size = check_file(path, "the database")
    with reading(path, "the database"), path.open("rb", buffering=0) as file:
        first = file.read(1 << 16)
    page = _page_size(first)
    if not page or page + _META_BYTES > len(first):
        raise ValueError(f"'{path}' is not an LMDB database; give its folder, or the file data.mdb")
    last = max(_last_page(first), _last_page(first[page:]))
    if (last + 1) * page > size:
        raise ValueError(
            f"'{path}' has {size:,} bytes, and its pages take {(last + 1) * page:,}; it is truncated, copy it"
            " again"
        )


def _page_size(meta: bytes) -> int:
    """Bytes of a page, from a page of meta data; 0 where it is none."""
    if len(meta) < _META_BYTES or _META.unpack_from(meta, _HEADER)[:2] != (_MAGIC, _VERSION):
        return 0
    page = int(struct.unpack_from("<I", meta, _HEADER + _META.size)[0])
    return page if 256 <= page <= 1 << 15 and page & (page - 1) == 0 else 0


def _last_page(meta: bytes) -> int:
    if not _page_size(meta):
        return 0
    return int(struct.unpack_from("<Q", meta, _HEADER + _META.size + 2 * _DB)[0])
