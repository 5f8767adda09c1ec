"""Thresholds from the data itself: scores of all items, beside those of errors that were planted in them.

Real errors are rare and unknown. But errors of each kind can be planted in the embeddings of the set (an
image under another label, an identity cut in two, two joined in one), and their scores tell where real
ones would lie.
"""

from dataclasses import dataclass

import numpy as np

from facescale.arrays import FloatArray, IntArray

_LEAST_REACHED = 0.2  # of planted errors at or above a score, to estimate the number of real ones there
_MOST_REACHED = 0.95  # below the score that so many planted errors reach, nothing is called an error
_MOST_ERRORS = 0.2  # of all items: errors are rare
_LEAST_ITEMS = 10  # fewer say nothing of a tail
_TAILS = ((0.5, 0.2), (0.2, 0.05))  # fractions of right items between which their tail is measured


@dataclass(frozen=True)
class Threshold:
    """From which score on an item is called an error.

    Attributes:
        score: the threshold; infinite if no score promises the precision.
        precision: expected fraction of real errors among the items found; nan where it was set by hand.
        recall: fraction of planted errors that reach the threshold.
    """

    score: float
    precision: float
    recall: float

    def reached(self, score_N: FloatArray) -> IntArray:
        """Places of the scores that are called errors, the clearest first."""
        found = np.flatnonzero(score_N >= self.score)
        order: IntArray = found[np.argsort(-score_N[found], kind="stable")]
        return order


def threshold_for(
    score_N: FloatArray, planted_M: FloatArray, precision: float, fixed: float | None = None
) -> Threshold:
    """The lowest score from which on a fraction ``precision`` of the items should be errors.

    Two estimates of the number of wrong proposals, of which the larger counts. (1) No more errors are
    there than the scores leave room for: if a fraction r of planted errors reaches a score that n items
    reach, there are n / r at most. The least of these numbers over all scores, times r, is the number of
    errors at a score (give or take its own chance, two standard deviations); the other items are right.
    (2) The scores of right items end in a tail that falls at least as fast as an exponential through two
    inner quantiles.

    Args:
        score_N: of all items; the higher, the more likely an error.
        planted_M: of planted errors.
        precision: expected fraction of errors among the items found, 0 to 1.
        fixed: a threshold set by hand.
    """
    planted_M, high_N = np.sort(planted_M), np.sort(score_N)[::-1]

    def reached(score: FloatArray) -> FloatArray:
        below: FloatArray = np.searchsorted(planted_M, score, "left") / max(len(planted_M), 1)
        return 1 - below

    if fixed is not None:
        return Threshold(fixed, np.nan, float(reached(np.array([fixed]))[0]) if len(planted_M) else np.nan)
    if len(high_N) < _LEAST_ITEMS or not len(planted_M):
        return Threshold(np.inf, np.nan, 0.0)
    num_N, reached_N = np.arange(1, len(high_N) + 1), reached(high_N)
    usable_N = reached_N >= _LEAST_REACHED
    errors = float((num_N[usable_N] / reached_N[usable_N]).min()) if usable_N.any() else 0.0
    errors = min(errors, _MOST_ERRORS * len(high_N))
    errors_N = errors * reached_N
    false_N = np.maximum(num_N - errors_N - 2 * np.sqrt(errors_N) - 1, 0)
    false_N = np.maximum(false_N, _expected_in_tail(high_N, np.maximum(num_N - errors_N, 0), errors))
    precision_N = 1 - false_N / num_N
    good = np.flatnonzero((precision_N >= precision) & (reached_N <= _MOST_REACHED))
    if not len(good):
        return Threshold(np.inf, np.nan, 0.0)
    place = good[-1]
    return Threshold(float(high_N[place]), float(precision_N[place]), float(reached_N[place]))


def _expected_in_tail(high_N: FloatArray, right_N: FloatArray, errors: float) -> FloatArray:
    """Right items expected at or above each score; the least over the tails, each of which is too heavy.

    Args:
        high_N: scores, highest first.
        right_N: estimated number of right items among the first.
        errors: estimated number of errors in all.
    """
    share_N = right_N / max(len(high_N) - errors, 1)
    expected_N = np.full(len(high_N), np.inf)
    for outer, inner in _TAILS:
        first, last = int(np.argmax(share_N >= outer)), int(np.argmax(share_N >= inner))
        # Half a standard error less: the quantiles of a few items say little.
        error = np.sqrt(1 / (outer * len(high_N)) + 1 / (inner * len(high_N)))
        fall = max(np.log(outer / inner) - error / 2, 0.0)
        slope = fall / max(high_N[last] - high_N[first], 1e-6)
        tail_N = len(high_N) * inner * np.exp(np.minimum(slope * (high_N[last] - high_N), np.log(1 / inner)))
        expected_N = np.minimum(expected_N, tail_N)
    return expected_N
