"""The words of a .rec file, mapped, and looked at in blocks so that the pages that were read can go again."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.recordio_format import Words

Keys = range | IntArray
"""Keys of records, ascending; a range takes no memory."""

BLOCK = 1 << 18  # records looked at together: 2 MB of offsets


class MappedWords:
    """A .rec file as 32-bit words.

    Attributes:
        values: uint32 (size / 4,).
        size: bytes.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.values: Words = np.frombuffer(self._map, np.dtype("<u4"))
        self.size = self.values.nbytes

    def release(self) -> None:
        """Give the pages that were read back to the system, where it can be told so."""
        if hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def blocks(self, num_records: int) -> Iterator[slice]:
        """Slices of all records; the pages of one are released before the next."""
        for start in range(0, num_records, BLOCK):
            yield slice(start, min(start + BLOCK, num_records))
            self.release()


class Gaps:
    """Bytes from each record to the next one in the file: its framed length, whatever its key.

    Args:
        offsets: of the records, by key.
        size: of the file.
    """

    def __init__(self, offsets: IntArray, size: int) -> None:
        self._offsets, self._size = offsets, size
        starts = range(0, len(offsets), BLOCK)
        self._all: IntArray | None = None
        if not all(is_ascending(offsets[start : start + BLOCK + 1]) for start in starts):
            order = np.argsort(offsets, kind="stable")
            self._all = np.empty_like(offsets)
            self._all[order] = np.diff(offsets[order], append=size)

    def of(self, part: slice) -> IntArray:
        """Those of some records, one after the other."""
        if self._all is not None:
            return self._all[part]
        own = self._offsets[part.start : part.stop + 1]
        return np.diff(own) if len(own) > part.stop - part.start else np.diff(own, append=self._size)


def is_ascending(values: IntArray) -> bool:
    """Whether each value is above the one before."""
    return bool((values[1:] > values[:-1]).all())


def continued(keys: Keys, new: IntArray, done: int, num_keys: int) -> Keys:
    """Keys with those of another block; a range as long as they count up by one.

    Args:
        keys: those of the blocks before, the first ``done``.
        new: those of this block.
        done: how many came before.
        num_keys: how many there will be.
    """
    stop = done + len(new)
    if isinstance(keys, range) and len(new):
        first = int(new[0])
        follows = not done or first == keys.stop
        if follows and np.array_equal(new, np.arange(first, first + len(new))):
            return range(keys.start if done else first, first + len(new))
        keys_N = np.empty(num_keys, np.int64)
        keys_N[:done] = keys
        keys = keys_N
    if not isinstance(keys, range):
        keys[done:stop] = new
    return keys
