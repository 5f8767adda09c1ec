"""What a verification protocol is: a list of images, and pairs of them in folds."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from facescale.data.readers.base import Reader
from facescale.evaluate.fold_rules import IntArray, contiguous_folds
from facescale.evaluate.histogram import BoolArray

Pixels = npt.NDArray[np.uint8]


class Images(Protocol):
    """Images by index, encoded (JPEG, PNG, ...) or as uint8 RGB pixels (H, W, 3)."""

    def __len__(self) -> int:
        """Number of images."""
        ...

    def __getitem__(self, index: int) -> bytes | Pixels:
        """Image ``index``."""
        ...

    def key(self, index: int) -> str:
        """A name for image ``index`` that a person can find again."""
        ...


@dataclass(frozen=True)
class Pairs:
    """A verification protocol. Every image is listed once, however many pairs it is in.

    Attributes:
        source: where it was read from, for people.
        images: the images.
        a: int64 (N,), index of the first image of each pair.
        b: int64 (N,), index of the second.
        is_same: bool (N,), True where both show one person (a genuine pair).
        fold: int64 (N,), fold of each pair.

    Raises:
        ValueError: columns that differ in length, an index without image, one kind of pairs or one fold only.
    """

    source: str
    images: Images = field(repr=False)
    a: IntArray
    b: IntArray
    is_same: BoolArray
    fold: IntArray

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.a, self.b, self.is_same, self.fold)}
        if len(lengths) != 1:
            raise ValueError(
                f"{self.source}: columns a, b, is_same and fold differ in length: {sorted(lengths)}"
            )
        if not 0 < self.num_genuine < len(self):
            raise ValueError(
                f"{self.source}: {self.num_genuine} of {len(self)} pairs are genuine; "
                "verification needs genuine and impostor pairs"
            )
        indices = np.concatenate([self.a, self.b])
        if indices.min() < 0 or indices.max() >= len(self.images):
            raise ValueError(
                f"{self.source}: pairs name images {indices.min()} to {indices.max()}, "
                f"but there are {len(self.images)}"
            )
        if len(np.unique(self.fold)) < 2:
            raise ValueError(f"{self.source}: all pairs are in one fold; accuracy needs at least two")

    def __len__(self) -> int:
        return len(self.is_same)

    @property
    def num_genuine(self) -> int:
        """Number of pairs of one person."""
        return int(np.sum(self.is_same))


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
        keep: hold every image after its first use. For readers that paint their images: a protocol is used
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


def stratified_folds(is_same: BoolArray, num_folds: int = 10) -> IntArray:
    """Fold of each pair (N,): genuine and impostor pairs are cut in file order, each for itself.

    So every fold holds both kinds in like shares, whether a list is sorted or not. A list too short for
    ``num_folds`` gets as many folds as its rarer kind has pairs.

    Raises:
        ValueError: fewer than two pairs of a kind.
    """
    counts = Counter(is_same.tolist())
    rarer = min(counts[True], counts[False])
    if rarer < 2:
        raise ValueError(
            f"{counts[True]} genuine and {counts[False]} impostor pairs; give at least two of each"
        )
    fold = np.empty(len(is_same), np.int64)
    for kind in (True, False):
        fold[is_same == kind] = contiguous_folds(counts[kind], min(num_folds, rarer))
    return fold
