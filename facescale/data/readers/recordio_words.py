"""The words of a .rec file, mapped, and looked at in blocks so that the pages that were read can go again."""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.recordio_format import Words

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


def gaps_between(offsets: IntArray, size: int) -> IntArray:
    """Bytes from each record to the next one in the file: its framed length, whatever its key."""
    if all(is_ascending(offsets[start : start + BLOCK + 1]) for start in range(0, len(offsets), BLOCK)):
        return np.diff(offsets, append=size)
    order = np.argsort(offsets, kind="stable")
    gaps = np.empty_like(offsets)
    gaps[order] = np.diff(offsets[order], append=size)
    return gaps


def is_ascending(values: IntArray) -> bool:
    """Whether each value is above the one before."""
    return bool((values[1:] > values[:-1]).all())
