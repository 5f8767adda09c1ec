"""Files that can only be read from their start on: compressed ones, and those behind a URL without ranges."""

import bz2
import gzip
import lzma
import os
import stat
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, BinaryIO

from facescale.data.readers.base import BadRecordError
from facescale.data.readers.shard_files import names_of
from facescale.guard.reading import reason

_UNKNOWN = 1 << 62  # bytes of a file that does not tell
_MOST_OPEN = 64
_SKIPPED = 1 << 20  # bytes passed over together

_UNPACK: dict[str, Callable[[BinaryIO], Any]] = {
    ".gz": lambda file: gzip.GzipFile(fileobj=file),
    ".tgz": lambda file: gzip.GzipFile(fileobj=file),
    ".bz2": bz2.BZ2File,
    ".xz": lzma.LZMAFile,
}


class _Forward:
    """A file that is read forward; what lies between two reads is passed over."""

    def __init__(self, name: str) -> None:
        self._raw = _opened(name)
        unpack = _UNPACK.get(os.path.splitext(name.partition("?")[0])[1].lower())
        self._file: Any = unpack(self._raw) if unpack else self._raw
        self.place = 0

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset``, which does not lie behind; fewer where the file ends."""
        while self.place < offset:
            skipped = len(self._file.read(min(offset - self.place, _SKIPPED)))
            if not skipped:
                raise EOFError(f"it ends at byte {self.place:,}, within an image; it is truncated")
            self.place += skipped
        parts = list[bytes]()
        while size:
            part = self._file.read(size)
            if not part:
                break
            parts.append(part)
            size -= len(part)
        data = b"".join(parts)
        self.place += len(data)
        return data

    def close(self) -> None:
        self._file.close()
        self._raw.close()


class StreamFiles:
    """Files of a sharded set that are read forward; going back opens one again at its start.

    Attributes:
        names: path or URL of each.
        sizes: more than any file has.
        stamps: what changes when a file does, as far as it can be asked.

    Raises:
        ValueError: a file is missing, or is a pipe, which can be read once only.
    """

    def __init__(self, text: str) -> None:
        self.names = names_of(text, ("*.tar", "*.tgz", "*.tar.*"))
        self.sizes = [_UNKNOWN] * len(self.names)
        self.stamps = [_stamp(name) for name in self.names]
        self._open: OrderedDict[int, _Forward] = OrderedDict()

    def read(self, number: int, offset: int, size: int) -> bytes:
        """Bytes of file ``number``; fewer where it ends.

        Raises:
            BadRecordError: it cannot be read, or ends before ``offset``.
        """
        try:
            return self._at(number, offset).read(offset, size)
        except Exception as error:  # each kind of storage raises its own
            self._drop(number)
            raise BadRecordError(f"cannot read '{self.names[number]}': {reason(error)}") from error

    def _at(self, number: int, offset: int) -> _Forward:
        if number in self._open and self._open[number].place > offset:
            self._drop(number)
        if number not in self._open:
            self._open[number] = _Forward(self.names[number])
        self._open.move_to_end(number)
        while len(self._open) > _MOST_OPEN:
            self._drop(next(iter(self._open)))
        return self._open[number]

    def _drop(self, number: int) -> None:
        if number in self._open:
            self._open.pop(number).close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}


def _opened(name: str) -> BinaryIO:
    if "://" not in name:
        return open(name, "rb")
    import fsspec

    forward = {"block_size": 0} if name.startswith("http") else {}
    files, path = fsspec.core.url_to_fs(name, **forward)
    file: BinaryIO = files.open(path, mode="rb")
    return file


def _stamp(name: str) -> str:
    """What changes when a file does; nothing where it cannot be asked."""
    if "://" in name:
        try:
            import fsspec
        except ImportError:
            raise ValueError(
                f"'{name}' needs fsspec; install it with: pip install 'facescale[remote]'"
            ) from None
        try:
            info = fsspec.core.url_to_fs(name)[0].info(name)
        except Exception:  # a server may answer to nothing but the reading itself
            return ""
        return str([info.get(key) for key in ("size", "ETag", "mtime", "LastModified")])
    try:
        status = os.stat(name)
    except OSError as error:
        raise ValueError(f"cannot read the shard '{name}': {reason(error)}; check the path") from None
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(
            f"cannot read the shard '{name}': it is not a regular file, and a set of images must be "
            "readable more than once; save it to a disk first"
        )
    return str([status.st_size, status.st_mtime_ns])
