"""The exact ROC of similarity scores: TAR at FAR, area, equal error rate.

Shapes: N scores, K points of the curve. A score is a similarity (larger is more alike); a pair is accepted
when ``score >= threshold``.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from facescale.arrays import BoolArray, FloatArray
from facescale.evaluate.rows import require_finite

FAR_RULES = ("below", "nearest", "interpolate")
MIN_FALSE_ACCEPTS = 10  # a rate that rests on fewer expected false accepts says little
ROUND_UP = 1 + 1e-12  # so that a rate of 0.29 over 100 pairs allows 29 false accepts, not 28


@dataclass(frozen=True)
class Roc:
    """An exact receiver operating characteristic: one point for every distinct score, and the origin.

    Attributes:
        far: (K,) false-accept rates, ascending from 0 to 1.
        tar: (K,) true-accept rates, ascending from 0 to 1.
        thresholds: (K,) scores, descending; the first is infinity (nothing is accepted).
        num_genuine: how many genuine pairs the rates are counted over.
        num_impostor: how many impostor pairs.
    """

    far: FloatArray
    tar: FloatArray
    thresholds: FloatArray
    num_genuine: int
    num_impostor: int

    def supports(self, far: float) -> bool:
        """Whether at least 10 false accepts are expected at ``far``; with fewer, the rate is mostly luck."""
        return far * self.num_impostor * ROUND_UP >= MIN_FALSE_ACCEPTS

    def index_at(self, far: float) -> int:
        """Index of the last point whose FAR is at most ``far``: the lowest threshold that keeps to it.

        Raises:
            ValueError: a rate outside (0, 1].
        """
        if not 0 < far <= 1:
            raise ValueError(f"false-accept rate {far} is out of range; use a number above 0 and at most 1")
        return int(np.searchsorted(self.far, far * ROUND_UP, side="right")) - 1

    def tar_at(self, far: float, rule: str = "below") -> float:
        """TAR at a false-accept rate.

        Args:
            far: the rate, above 0 and at most 1.
            rule: "below": the largest TAR whose FAR does not exceed ``far`` (what an operator can promise).
                "nearest": TAR of the point whose FAR is nearest, the larger on a tie (insightface on IJB).
                "interpolate": linear between the two points around ``far``.

        Raises:
            ValueError: a rate outside (0, 1], an unknown rule.
        """
        if rule not in FAR_RULES:
            raise ValueError(f"unknown rule '{rule}' for TAR at FAR; choose one of: {', '.join(FAR_RULES)}")
        below = self.index_at(far)
        if rule == "below" or below == len(self.far) - 1:
            return float(self.tar[below])
        above_far = self.far[below + 1]
        if rule == "nearest":
            nearest_far = above_far if above_far - far <= far - self.far[below] else self.far[below]
            return float(self.tar[np.searchsorted(self.far, nearest_far, side="right") - 1])
        share = (far - self.far[below]) / (above_far - self.far[below])
        return float(self.tar[below] + share * (self.tar[below + 1] - self.tar[below]))

    @cached_property
    def auc(self) -> float:
        """Area under the curve: the chance that a genuine pair beats an impostor pair (ties count half)."""
        return float(np.sum(np.diff(self.far) * (self.tar[1:] + self.tar[:-1]) / 2))

    @cached_property
    def eer(self) -> float:
        """Equal error rate: where FAR equals 1 - TAR, linear between the two points around the crossing."""
        gap = self.far - (1 - self.tar)
        after = int(np.searchsorted(gap, 0.0))  # gap rises from -1 to 1, so there is a point before
        share = -gap[after - 1] / (gap[after] - gap[after - 1])
        return float(self.far[after - 1] + share * (self.far[after] - self.far[after - 1]))


def roc(scores: FloatArray, is_genuine: BoolArray, drop_collinear: bool = False) -> Roc:
    """Exact ROC of similarity scores (N,).

    Args:
        scores: (N,) larger means more similar.
        is_genuine: (N,) True for genuine pairs.
        drop_collinear: leave out points between two equal steps, as scikit-learn's ``roc_curve`` does by
            default; the curve is the same, but the point *nearest* to a FAR can then be another one.

    Raises:
        ValueError: lengths that differ, scores that are not finite, no genuine or no impostor pair.
    """
    scores, is_genuine = np.asarray(scores), np.asarray(is_genuine, dtype=bool)
    if scores.ndim != 1 or scores.shape != is_genuine.shape:
        raise ValueError(
            f"scores of shape {scores.shape} do not fit labels of shape {is_genuine.shape}; "
            "pass one label per score"
        )
    require_finite(scores, "scores")
    num_genuine = int(is_genuine.sum())
    num_impostor = len(scores) - num_genuine
    if not num_genuine or not num_impostor:
        raise ValueError(
            f"{num_genuine} genuine and {num_impostor} impostor pairs do not define a ROC; pass both kinds"
        )
    order = np.argsort(scores)[::-1]
    ranked = scores[order]
    # Position of the last pair of each distinct score: pairs of one score are accepted together.
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), len(ranked) - 1)
    accepted_genuine = np.cumsum(is_genuine[order])[last]
    accepted_impostor = last + 1 - accepted_genuine
    if drop_collinear and len(last) > 2:
        bends = (np.diff(accepted_genuine, 2) != 0) | (np.diff(accepted_impostor, 2) != 0)
        kept = np.concatenate([[True], bends, [True]])
        last, accepted_genuine, accepted_impostor = (
            last[kept],
            accepted_genuine[kept],
            accepted_impostor[kept],
        )
    return Roc(
        far=np.append(0, accepted_impostor) / num_impostor,
        tar=np.append(0, accepted_genuine) / num_genuine,
        thresholds=np.append(np.inf, ranked[last].astype(np.float64)),
        num_genuine=num_genuine,
        num_impostor=num_impostor,
    )


def tar_at_far(scores: FloatArray, is_genuine: BoolArray, far: float, rule: str = "below") -> float:
    """TAR at a false-accept rate; see `roc` for the input and `Roc.tar_at` for the rules."""
    return roc(scores, is_genuine).tar_at(far, rule)
