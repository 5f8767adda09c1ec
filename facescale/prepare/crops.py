"""Read the kept crops of a preparation as a data set."""

from collections.abc import Callable, Sequence

import numpy as np

from facescale.arrays import IntArray
from facescale.prepare.scan import Source


class CropReader:
    """The crops of ``sources``: a reader whose identities are in the order of their names.

    Args:
        picture: gives the crop of a key, as JPEG.
        sources: the photos, with their identities.
    """

    def __init__(self, picture: Callable[[str], bytes], sources: Sequence[Source]) -> None:
        self._picture = picture
        self._keys = [source.key for source in sources]
        self.names: Sequence[str] = sorted({source.identity for source in sources})
        numbers = {name: number for number, name in enumerate(self.names)}
        self.ids: IntArray = np.array([numbers[source.identity] for source in sources], np.int64)

    @property
    def num_ids(self) -> int:
        """Number of identities."""
        return len(self.names)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Crop and identity of ``index``."""
        return self._picture(self._keys[index]), int(self.ids[index])

    def key(self, index: int) -> str:
        """Path of the photo below its root."""
        return self._keys[index]
