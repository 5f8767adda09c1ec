"""Which images make which item of an epoch."""

from typing import Protocol

from facescale.arrays import IntArray
from facescale.data.sampling.counter_rng import ORDER, permuted


class Sampler(Protocol):
    """The order of an epoch, as a pure function of (seed, epoch, position).

    An item is the images that stand at one place of a batch, one for each view. Nothing that matters is kept
    between calls, so any process can compute any part of any epoch.

    Attributes:
        views: images per item.
        one_identity: all views of an item show the same identity.
    """

    @property
    def views(self) -> int:
        """Images per item."""
        ...

    @property
    def one_identity(self) -> bool:
        """Whether all views of an item show the same identity."""
        ...

    def __len__(self) -> int:
        """Items in an epoch."""
        ...

    def indices(self, epoch: int, position_B: IntArray) -> IntArray:
        """Reader indices (V, B) of the items at ``position_B`` of an epoch, 0 <= position < len(self)."""
        ...


class ImageSampler:
    """Every image once per epoch, in an order of its own each epoch."""

    views = 1
    one_identity = True

    def __init__(self, num_images: int, seed: int) -> None:
        self._num_images = num_images
        self._seed = seed

    def __len__(self) -> int:
        return self._num_images

    def indices(self, epoch: int, position_B: IntArray) -> IntArray:
        """Reader indices (1, B)."""
        return permuted(position_B, self._num_images, ORDER, self._seed, epoch)[None]


def num_items(num_images: int, identity_pairs: bool) -> int:
    """Items of an epoch: one an image, or three for two images where pairs are needed."""
    return 3 * (num_images // 2) if identity_pairs else num_images
