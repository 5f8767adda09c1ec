"""Images by index, without identities: of a reader, or held in memory."""

from collections.abc import Sequence
from typing import Protocol

from facescale.arrays import Pixels
from facescale.data.readers.base import Reader


class Images(Protocol):
    """Images by index, encoded (JPEG, PNG, ...) or as uint8 RGB pixels (H, W, 3)."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int) -> bytes | Pixels:
        """Image ``index``."""
        ...

    def key(self, index: int) -> str:
        """A name by which a person can find image ``index``."""
        ...


class IndexedImages:
    """Images held in memory."""

    def __init__(self, images: Sequence[bytes | Pixels], keys: Sequence[str]) -> None:
        self._images, self._keys = images, keys

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> bytes | Pixels:
        return self._images[index]

    def key(self, index: int) -> str:
        """Name of image ``index``."""
        return self._keys[index]


class ReaderImages:
    """The images of a reader, without their identities.

    Args:
        reader: the images.
        keep: hold every image after its first use. For readers that render their images: a protocol is used
            again at every evaluation of a training.
    """

    def __init__(self, reader: Reader, keep: bool = False) -> None:
        self._reader = reader
        self._kept: dict[int, bytes | Pixels] | None = {} if keep else None

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> bytes | Pixels:
        if self._kept is None:
            return self._reader[index][0]
        if index not in self._kept:
            self._kept[index] = self._reader[index][0]
        return self._kept[index]

    def key(self, index: int) -> str:
        """Name of image ``index``."""
        return self._reader.key(index)
