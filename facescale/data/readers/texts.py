"""Many short strings in little memory."""

import os
import zlib
from array import array
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.data.sampling.counter_rng import Uints


class Texts:
    """Many short strings in one block of bytes: tens of millions of ``str`` objects would fill the memory."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes: Any = bytearray()
        self._ends: Any = array("q", [0])
        self.add(texts)

    @classmethod
    def of_block(cls, block: npt.NDArray[np.uint8], ends: IntArray) -> "Texts":
        """Strings whose bytes follow one another in ``block``; string i ends at byte ``ends[i + 1]``.

        Nothing is copied, and nothing can be added.
        """
        texts = cls()
        texts._bytes, texts._ends = block, ends
        return texts

    @property
    def block(self) -> tuple[npt.NDArray[np.uint8], IntArray]:
        """What `of_block` takes."""
        return np.frombuffer(self._bytes, np.uint8), np.array(self._ends, np.int64)

    def add(self, texts: Iterable[str]) -> None:
        """Append strings; bytes of a file's name that are not UTF-8 stay what they are."""
        for text in texts:
            self._bytes += os.fsencode(text)
            self._ends.append(len(self._bytes))

    def checksums(self) -> Uints:
        """CRC-32 of each, uint64 (N,)."""
        block, ends = memoryview(self._bytes), self._ends
        found = (zlib.crc32(block[start:end]) for start, end in pairwise(ends))
        return np.fromiter(found, np.uint64, len(self))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def raw(self, index: int) -> bytes:
        """The bytes of string ``index``."""
        return bytes(self._bytes[self._ends[index] : self._ends[index + 1]])

    def __getitem__(self, index: int) -> str:
        return os.fsdecode(self.raw(index))
