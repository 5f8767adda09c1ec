"""Threshold and TAR at a false-accept rate, with intervals that know that pairs share people.

The threshold's interval holds every threshold at which the interval of the false-accept rate contains the
rate that was asked for. TAR varies with the genuine pairs and with the threshold; both parts are combined as
squares of distances (MOVER: Zou and Donner, Statistics in Medicine 27, 2008), less their correlation: people
whose faces score high do so in both kinds of pairs, and what raises the threshold then raises the genuine
scores too. K impostor pairs, G genuine, P people.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.identification import Identification
from facescale.evaluate.intervals import PairTotals, RateInterval, rate_interval, residuals
from facescale.evaluate.operating_point import OperatingPoint


@dataclass(frozen=True)
class ScoredPairs:
    """The scores of one kind of pairs, descending, with the people of each.

    Attributes:
        scores: (K,) descending; of the impostor pairs the highest suffice.
        first: (K,) number of a person, from 0.
        second: (K,) the other one.
        totals: of all pairs of this kind.
        people: (P,) ascending, what each number stands for elsewhere.
    """

    scores: FloatArray
    first: IntArray
    second: IntArray
    totals: PairTotals
    people: IntArray

    @classmethod
    def of(cls, scores: FloatArray, first: IntArray, second: IntArray) -> "ScoredPairs":
        """Of all pairs of a kind, in any order; people may have any numbers."""
        people, number = np.unique(np.concatenate([first, second]), return_inverse=True)
        order = np.argsort(-scores, kind="stable")
        a, b = number.reshape(2, -1)[:, order]
        return cls(scores[order], a, b, PairTotals.of_pairs(a, b, len(people)), people)

    def highest(self, count: int) -> RateInterval:
        """Rate of the ``count`` pairs with the highest scores."""
        return rate_interval(self.first[:count], self.second[:count], self.totals)

    def from_score(self, threshold: float) -> RateInterval:
        """Rate of the pairs that score ``threshold`` or more."""
        return self.highest(self.count(threshold))

    def count(self, threshold: float) -> int:
        """Number of pairs that score ``threshold`` or more."""
        return int(np.searchsorted(-self.scores, -threshold, side="right"))

    def residuals(self, threshold: float) -> FloatArray:
        """(P,) pairs of each person that score ``threshold`` or more, beyond the share of all people."""
        count = self.count(threshold)
        return residuals(self.first[:count], self.second[:count], self.totals)


def split_pairs(
    scores: FloatArray, is_genuine: BoolArray, first: IntArray, second: IntArray
) -> tuple[ScoredPairs, ScoredPairs]:
    """Genuine and impostor pairs of a list (N,)."""
    genuine = ScoredPairs.of(scores[is_genuine], first[is_genuine], first[is_genuine])
    impostor = ~is_genuine
    return genuine, ScoredPairs.of(scores[impostor], first[impostor], second[impostor])


def identity_point(
    genuine: ScoredPairs, impostor: ScoredPairs, far: float, threshold: float, supported: bool
) -> OperatingPoint:
    """Intervals around a threshold that was chosen for a false-accept rate.

    Args:
        genuine: all genuine pairs.
        impostor: the impostor pairs with the highest scores, some more than ``far`` accepts.
        far: the rate that was asked for.
        threshold: accepts no more than it.
        supported: whether the set is large enough for it.
    """
    tar = genuine.from_score(threshold)
    low, high = _threshold_interval(impostor, far)
    at_low, at_high = genuine.from_score(low).rate, genuine.from_score(high).rate
    shared = _correlation(genuine, impostor, threshold)
    below = _combined(tar.rate - tar.low, max(tar.rate - at_high, 0.0), shared)
    above = _combined(tar.high - tar.rate, max(at_low - tar.rate, 0.0), shared)
    return OperatingPoint(
        far=far,
        threshold=threshold,
        threshold_low=min(low, threshold),
        threshold_high=max(high, threshold),
        tar=tar.rate,
        tar_low=max(0.0, tar.rate - below),
        tar_high=min(1.0, tar.rate + above),
        supported=supported,
    )


def _correlation(genuine: ScoredPairs, impostor: ScoredPairs, threshold: float) -> float:
    """Of what a person adds to the genuine and to the impostor pairs above a threshold."""
    of_genuine, of_impostor = genuine.residuals(threshold), impostor.residuals(threshold)
    _, a, b = np.intersect1d(genuine.people, impostor.people, assume_unique=True, return_indices=True)
    squares = float(of_genuine @ of_genuine) * float(of_impostor @ of_impostor)
    return float(of_genuine[a] @ of_impostor[b]) / squares**0.5 if squares else 0.0


def _combined(one: float, other: float, correlation: float) -> float:
    """Length of two distances from a difference whose parts are correlated."""
    return float(np.sqrt(max(one**2 + other**2 - 2 * correlation * one * other, 0.0)))


def search_intervals(
    found: Identification, fpir: float, mated: IntArray, strangers: IntArray
) -> dict[str, tuple[float, float]]:
    """Intervals of TPIR and its threshold at a false-positive identification rate; the gallery is fixed.

    Args:
        found: the search.
        fpir: the rate.
        mated: (M,) person of each mated probe.
        strangers: (U,) person of each of the others.
    """
    counts = ScoredPairs.of(np.where(found.rank_M == 1, found.mate_M, -2.0), mated, mated)
    others = ScoredPairs.of(found.other_U, strangers, strangers)
    threshold = float(np.nextafter(found.threshold_at(fpir), 2))  # a mate must be strictly above it
    point = identity_point(counts, others, fpir, threshold, supported=True)
    ends = {f"tpir@fpir={fpir:g}": (point.tar_low, point.tar_high)}
    if point.usable:
        ends[f"threshold@fpir={fpir:g}"] = (point.threshold_low, point.threshold_high)
    return ends


def _threshold_interval(impostor: ScoredPairs, far: float) -> tuple[float, float]:
    """Lowest and highest threshold whose interval of the false-accept rate contains ``far``."""
    scores = impostor.scores
    near = int(far * impostor.totals.num_pairs) + 1
    most = _last(len(scores), near, lambda count: impostor.highest(count).low <= far)
    fewest = _last(len(scores), near, lambda count: impostor.highest(count).high < far) + 1
    low = float(scores[most - 1]) if most > 0 else np.inf
    high = float(scores[fewest - 1]) if fewest else np.inf
    return low, high


def _last(most: int, near: int, holds: Callable[[int], bool]) -> int:
    """The largest count up to ``most`` for which a falling condition holds; -1 if it never does.

    ``near`` is about where it lies: counts far above it take long to try.
    """
    high = min(2 * near, most)
    while high < most and holds(high):
        high = min(4 * high, most)
    low = -1
    while low < high:
        middle = (low + high + 1) // 2
        if holds(middle):
            low = middle
        else:
            high = middle - 1
    return low
