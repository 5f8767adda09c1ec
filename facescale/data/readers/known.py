"""A data set that also knows people of an earlier run of whom it has no image."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from facescale.arrays import IntArray, Pixels
from facescale.data.readers.base import People, Reader, image_sources, passed_over, repeated_sources


class WithKnownPeople:
    """The images of ``reader``; the people of an earlier run come first, with or without images.

    Args:
        reader: the images.
        old_N: number of each of its identities in the earlier run; -1 for new ones.
        people: everybody, those of the earlier run first.

    Attributes:
        people: see above.
    """

    def __init__(self, reader: Reader, old_N: IntArray, people: People) -> None:
        self._reader = reader
        is_new = old_N < 0
        self.people = people
        self.num_ids = len(people.names)
        num_old = self.num_ids - int(is_new.sum())
        self.ids: IntArray = np.where(is_new, num_old - 1 + np.cumsum(is_new), old_N)[reader.ids]
        if people.named:
            self.names = people.names

    @property
    def sources(self) -> IntArray:
        """Number of the joined source that each image is from."""
        return image_sources(self._reader)

    @property
    def passed_over(self) -> Counter[str]:
        """Files that the source did not take."""
        return passed_over(self._reader)

    @property
    def repeated(self) -> Sequence[str]:
        """Sources that the source holds more than once."""
        return repeated_sources(self._reader)

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[bytes | Pixels, int]:
        """Image ``index`` and its identity."""
        return self._reader[index][0], int(self.ids[index])

    def key(self, index: int) -> str:
        """The source's name for image ``index``."""
        return self._reader.key(index)
