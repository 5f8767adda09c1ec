"""One process's part of a global batch."""

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One process's part of a global batch. V views, B images of each, H W height and width.

    Attributes:
        images: uint8 (V, B, H, W, 3), RGB, as they were decoded.
        ids: int64 (B,), identities; (V, B) from a sampler whose views show different ones.
        index: int64 (B,), place of the first view in the reader.
        epoch: epoch that the batch belongs to.
        random: float32 (V, B, NUM_RANDOM) in [0, 1), functions of (seed, epoch, image, view); they drive
            every augmentation.
        repeats: bool (V, B), images that an earlier view of the item shows already.
    """

    images: Tensor
    ids: Tensor
    index: Tensor
    epoch: int
    random: Tensor
    repeats: Tensor

    def split(self, size: int) -> Iterator["Batch"]:
        """Successive parts of up to ``size`` items."""
        for start in range(0, len(self.index), size):
            part = slice(start, start + size)
            yield Batch(
                images=self.images[:, part],
                ids=self.ids[..., part],
                index=self.index[part],
                epoch=self.epoch,
                random=self.random[:, part],
                repeats=self.repeats[:, part],
            )
