"""Which images make which item of an epoch."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from facescale.arrays import IntArray
from facescale.data.sampling.counter_rng import Uints
from facescale.data.sampling.draws import Draws, EveryImage, InWindows


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


def replacement(sampler: Sampler, position_B: IntArray, bits_B: Uints) -> IntArray:
    """Positions of the items that replace unreadable ones: any, or near ones of a source read forward."""
    near: Callable[[IntArray, Uints], IntArray] | None = getattr(sampler, "near", None)
    return (bits_B % np.uint64(len(sampler))).astype(np.int64) if near is None else near(position_B, bits_B)


def turns_of(sampler: Sampler, epoch: int, position_B: IntArray) -> IntArray:
    """How often the first images of items were drawn before in an epoch, int64 (B,).

    0 for a sampler without a method ``turns``, which draws each image once.
    """
    turns: Callable[[int, IntArray], IntArray] | None = getattr(sampler, "turns", None)
    return np.zeros_like(position_B) if turns is None else turns(epoch, position_B)


class ImageSampler:
    """Single images, each once per epoch in an order of its own, or as ``draws`` says."""

    views = 1
    one_identity = True

    def __init__(self, num_images: int, seed: int, draws: Draws | None = None) -> None:
        self._draws = draws or EveryImage(num_images, seed)

    def __len__(self) -> int:
        return len(self._draws)

    def indices(self, epoch: int, position_B: IntArray) -> IntArray:
        """Reader indices (1, B)."""
        return self._draws.at(epoch, position_B).index_B[None]

    def turns(self, epoch: int, position_B: IntArray) -> IntArray:
        """See ``turns_of``."""
        return self._draws.at(epoch, position_B).turn_B

    def near(self, position_B: IntArray, bits_B: Uints) -> IntArray:
        """See ``replacement``."""
        if isinstance(self._draws, InWindows):
            return self._draws.near(position_B, bits_B)
        return (bits_B % np.uint64(len(self))).astype(np.int64)


def num_items(num_images: int, identity_pairs: bool) -> int:
    """Items of an epoch: one an image, or three for two images where pairs are needed."""
    return 3 * (num_images // 2) if identity_pairs else num_images
