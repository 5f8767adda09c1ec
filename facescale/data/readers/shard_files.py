"""Files of a sharded set that are read at any place: local ones, or those of a URL by fsspec."""

import os
import re
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from facescale.data.readers.base import BadRecordError
from facescale.guard.reading import check_file

_MOST_OPEN = 256  # descriptors kept open; files beyond are opened for each read
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 1_000_000
_STAMPS = ("ETag", "etag", "mtime", "LastModified")  # what storages call it


class ShardFiles(Protocol):
    """Several files.

    Attributes:
        names: path or URL of each.
        sizes: bytes of each.
        stamps: what changes when a file does.
    """

    names: list[str]
    sizes: list[int]
    stamps: list[str]

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of file ``number``; raises BadRecordError where it cannot be read."""
        ...


def open_shards(text: str) -> ShardFiles:
    """The files of a folder (all *.tar in order), of a path with ranges ``{000..012}``, or of a URL.

    Raises:
        ValueError: a file is missing, or the package fsspec, for a URL.
    """
    names = names_of(text)
    return RemoteFiles(names) if "://" in text else LocalFiles(names)


def names_of(text: str, patterns: Sequence[str] = ("*.tar",)) -> list[str]:
    """Path or URL of each file.

    Args:
        text: see `open_shards`.
        patterns: of the files of a folder.

    Raises:
        ValueError: a folder without one, or a range that is none.
    """
    if os.path.isdir(text):
        some = (path for pattern in patterns for path in Path(text).glob(pattern))
        found = sorted(str(path) for path in some if not path.name.startswith("."))
        if not found:
            raise ValueError(f"'{text}' holds no .tar file; give the folder of the shards")
        return found
    return [text] if os.path.exists(text) else _expanded(text)


def _expanded(text: str) -> list[str]:
    """Every name of a pattern with ranges of numbers."""
    found = _RANGE.search(text)
    if not found:
        return [text]
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + _MOST_SHARDS:
        raise ValueError(f"'{text}' has the range {found[0]}; write {{first..last}}, such as {{000..012}}")
    before, after = text[: found.start()], text[found.end() :]
    numbers = [f"{number:0{len(found[1])}d}" for number in range(first, last + 1)]
    return [name for number in numbers for name in _expanded(f"{before}{number}{after}")]


class LocalFiles:
    """Files of this machine; threads and forked processes share the descriptors (``pread``).

    Raises:
        ValueError: one is missing.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.sizes = [check_file(name, "the shard") for name in names]
        self.stamps = [str(os.stat(name).st_mtime_ns) for name in names]
        self._fds: dict[int, int] = {}
        weakref.finalize(self, _close, self._fds)

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of file ``number``.

        Raises:
            BadRecordError: it cannot be read, or ends before.
        """
        try:
            fd = self._fds.get(number)
            if fd is not None:
                data = os.pread(fd, size, offset)
            elif len(self._fds) < _MOST_OPEN:
                data = os.pread(self._opened(number), size, offset)
            else:
                with open(self.names[number], "rb", buffering=0) as file:
                    data = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise BadRecordError(f"cannot read '{self.names[number]}': {error.strerror}") from error
        if len(data) < size:
            raise BadRecordError(f"'{self.names[number]}' ends before byte {offset + size:,}")
        return data

    def _opened(self, number: int) -> int:
        mine = os.open(self.names[number], os.O_RDONLY)
        kept = self._fds.setdefault(number, mine)  # of two threads, one comes first
        if kept != mine:
            os.close(mine)
        return kept

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_fds"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fds = {}
        weakref.finalize(self, _close, self._fds)


def _close(fds: dict[int, int]) -> None:
    for fd in fds.values():
        os.close(fd)


class RemoteFiles:
    """Files behind a URL; the connection is made anew in each process.

    Raises:
        ValueError: one cannot be reached or does not tell its size, or the package fsspec is missing.
    """

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._process, self._system = -1, None
        sizes, stamps = [], []
        for name in names:
            try:
                info = self._files().info(name)
            except (OSError, ValueError, ImportError) as error:
                raise ValueError(f"cannot read '{name}': {error}; check address and access") from None
            size = info.get("size")
            if size is None:
                raise ValueError(
                    f"'{name}' does not tell its size, so it cannot be read at any place; copy it to a disk,"
                    " or read it forward with stream:"
                )
            sizes.append(int(size))
            stamps.append(
                str(next((info[key] for key in ("ETag", "etag", "mtime", "LastModified") if key in info), ""))
            )
        self.sizes, self.stamps = sizes, stamps

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of file ``number``.

        Raises:
            BadRecordError: it cannot be read, or ends before.
        """
        name = self.names[number]
        try:
            data: bytes = self._files().cat_file(name, start=offset, end=offset + size)
        except Exception as error:  # each kind of storage raises its own
            raise BadRecordError(f"cannot read '{name}': {error}") from error
        if len(data) < size:
            raise BadRecordError(f"'{name}' ends before byte {offset + size:,}")
        return data

    def _files(self) -> Any:
        if self._process != os.getpid():
            try:
                import fsspec
            except ImportError:
                raise ValueError(
                    f"'{self.names[0]}' needs fsspec; install it with: pip install 'facescale[remote]'"
                ) from None
            self._system = fsspec.core.url_to_fs(self.names[0], skip_instance_cache=True)[0]
            self._process = os.getpid()
        return self._system

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_process": -1, "_system": None}
