"""Images grouped by identity."""

import numpy as np

from facescale.arrays import IntArray
from facescale.data.sampling.counter_rng import hash64


class ByIdentity:
    """Images grouped by identity.

    Args:
        ids: identity of every image, (N,).
    """

    def __init__(self, ids: IntArray) -> None:
        self.images = ids.argsort(kind="stable")
        self.present, self.starts, self.counts = np.unique(
            ids[self.images], return_index=True, return_counts=True
        )
        gapless = self.present.size == self.present[-1] + 1
        self.group = ids if gapless else np.searchsorted(self.present, ids)  # of every image
        self.rank = np.empty_like(self.images)  # place of every image among those of its identity
        self.rank[self.images] = np.arange(ids.size) - self.starts.repeat(self.counts)

    @property
    def num_single(self) -> int:
        """Identities with one image."""
        return int(np.count_nonzero(self.counts == 1))


def random_below(limit_B: IntArray, *streams: int | IntArray) -> IntArray:
    """A random number in [0, limit) for each item, a function of ``streams``."""
    below: IntArray = (hash64(*streams) % limit_B.astype(np.uint64)).astype(np.int64)
    return below
