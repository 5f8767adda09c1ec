"""The impostor pairs of every two groups: how many there are, and how many a threshold accepts.

N images, P people, G groups.
"""

import numpy as np

from facescale.arrays import IntArray
from facescale.evaluate.intervals import PairTotals, RateInterval, mean_interval, rate_interval
from facescale.evaluate.scored import ScoredImages


class GroupCells:
    """The impostor pairs of every two groups."""

    def __init__(self, scored: ScoredImages, group_N: IntArray, num_groups: int) -> None:
        self._pairs, self._num_groups = scored.impostor, num_groups
        first, second = group_N[self._pairs.first], group_N[self._pairs.second]
        # Below 0 where an image has no group, which is -1.
        code = np.minimum(first, second) * num_groups + np.maximum(first, second)
        self._order = np.argsort(code, kind="stable")
        self._starts = np.searchsorted(code[self._order], np.arange(num_groups**2 + 1))
        self._person_N, self._images_GP = scored.person_N, None
        if scored.is_every_pair:
            people, self._person_N = np.unique(scored.person_N, return_inverse=True)
            self._images_GP = [
                np.bincount(self._person_N[group_N == group], minlength=len(people))
                for group in range(num_groups)
            ]

    def count(self, a: int, b: int) -> int:
        """Number of impostor pairs, ``a`` at most ``b``."""
        return len(self._here(a, b)) if self._images_GP is None else self._totals(a, b).num_pairs

    def fmr(self, a: int, b: int, threshold: float) -> RateInterval:
        """Share of them that a threshold accepts."""
        here = self._here(a, b)
        accepted = self._pairs.scores[here] >= threshold
        first, second = (self._person_N[side[here]] for side in (self._pairs.first, self._pairs.second))
        if self._images_GP is None:
            return mean_interval(accepted, first, second)
        return rate_interval(first[accepted], second[accepted], self._totals(a, b))

    def _here(self, a: int, b: int) -> IntArray:
        code = a * self._num_groups + b
        return self._order[self._starts[code] : self._starts[code + 1]]

    def _totals(self, a: int, b: int) -> PairTotals:
        assert self._images_GP is not None
        if a == b:
            return PairTotals.of_all_impostors(self._images_GP[a])
        return PairTotals.between(self._images_GP[a], self._images_GP[b])
