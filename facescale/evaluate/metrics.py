"""Verification figures from embeddings or scores: pair accuracy, ROC, TAR@FAR, EER, thresholds (numpy only).

Shapes: N pairs or scores, D embedding width, F folds, K points of a ROC, R bootstrap resamples.
A score is a similarity (larger means more similar); a pair is accepted when ``score >= threshold``.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.fold_rules import (
    PairResult,
    balanced_histogram_folds,
    contiguous_folds,
    exhaustive_folds,
    insightface_folds,
)
from facescale.registry import lookup

PAIR_RULES = {
    "insightface": insightface_folds,
    "ffc": balanced_histogram_folds,
    "ffc_video": exhaustive_folds,
}
FAR_RULES = ("below", "nearest", "interpolate")
MIN_FALSE_ACCEPTS = 10  # a rate that rests on fewer expected false accepts says little
ROUND_UP = 1 + 1e-12  # so that a rate of 0.29 over 100 pairs allows 29 false accepts, not 28


def unit_rows(x_ND: FloatArray) -> FloatArray:
    """Rows scaled to length 1, in float64; a zero row stays zero."""
    x_ND = np.asarray(x_ND, dtype=np.float64)
    norm_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    unit_ND: FloatArray = x_ND / np.where(norm_N1 == 0, 1.0, norm_N1)
    return unit_ND


def pair_accuracy(
    embeddings: FloatArray,
    is_same: BoolArray,
    rule: str = "insightface",
    num_folds: int = 10,
    pca: int | None = None,
    fold_ids: IntArray | None = None,
) -> PairResult:
    """Accuracy of pairs; each fold is scored at the threshold that is best on the other folds.

    Args:
        embeddings: (2N, D) rows 2i and 2i+1 are pair i; they are normalised here, in float64.
        is_same: (N,) True where both images show one person.
        rule: how a fold takes its threshold from the others. "insightface": squared distance on a grid, best
            accuracy. "ffc": cosine, histogram, best balanced accuracy (F2C on LFW, CFP). "ffc_video": cosine,
            every training score, best accuracy (F2C on YTF).
        num_folds: number of folds, cut in the order of the pairs.
        pca: project onto this many principal components of each fold's training pairs, then normalise again.
        fold_ids: (N,) fold of each pair, in place of ``num_folds`` equal parts.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, an unknown rule, impossible folds.
    """
    folds_of = lookup("rule", PAIR_RULES, rule)
    is_same = np.asarray(is_same, dtype=bool)
    if np.ndim(embeddings) != 2 or len(embeddings) != 2 * len(is_same):
        raise ValueError(
            f"embeddings of shape {np.shape(embeddings)} do not fit {len(is_same)} pairs; "
            f"pass two rows per pair, in order: ({2 * len(is_same)}, D)"
        )
    require_finite(embeddings, "embeddings")
    fold_of_N = contiguous_folds(len(is_same), num_folds) if fold_ids is None else np.asarray(fold_ids)
    folds = np.unique(fold_of_N)
    if len(fold_of_N) != len(is_same) or len(folds) < 2:
        raise ValueError(
            f"{len(fold_of_N)} fold numbers with {len(folds)} values do not fit {len(is_same)} pairs; "
            "pass one per pair, and at least two folds"
        )
    x_ND = unit_rows(embeddings)
    if pca is None:
        measured_FN = np.broadcast_to(_measure(x_ND, rule), (len(folds), len(is_same)))
    else:
        measured_FN = np.stack(
            [_measure(_project(x_ND, np.repeat(fold_of_N != fold, 2), pca), rule) for fold in folds]
        )
    return folds_of(measured_FN, is_same, fold_of_N)


def _measure(x_ND: FloatArray, rule: str) -> FloatArray:
    a_ND, b_ND = x_ND[0::2], x_ND[1::2]
    measured_N: FloatArray = (np.square(a_ND - b_ND) if rule == "insightface" else a_ND * b_ND).sum(axis=1)
    return measured_N


def _project(x_ND: FloatArray, is_train: BoolArray, num_components: int) -> FloatArray:
    """Unit rows after projection onto the principal components of the training rows."""
    width = x_ND.shape[1]
    if not 1 <= num_components <= width:
        raise ValueError(
            f"pca={num_components} does not fit embeddings of width {width}; choose 1 to {width}, or None"
        )
    mean = x_ND[is_train].mean(axis=0)
    _, vectors = np.linalg.eigh(np.cov(x_ND[is_train], rowvar=False, bias=True).reshape(width, width))
    return unit_rows((x_ND - mean) @ vectors[:, -num_components:])


def require_finite(values: FloatArray, what: str) -> None:
    """Check that ``values`` holds no NaN or infinity.

    Args:
        values: (N,) or (N, D).
        what: name of the rows in the message.

    Raises:
        ValueError: some entries (rows of a matrix) are not finite; the message counts them.
    """
    rows = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(rows):
        raise ValueError(
            f"{len(rows)} of {len(values)} {what} contain NaN or infinity: the network has diverged; "
            "use an earlier checkpoint or lower the learning rate"
        )


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
        """Index of the last point whose FAR is at most ``far``: the lowest threshold that satisfies it.

        Raises:
            ValueError: ``far`` is not above 0 and at most 1.
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


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold for a false-accept rate, with what resampling the pairs says of its certainty.

    Attributes:
        far: the rate that was asked for.
        threshold: lowest observed score whose FAR does not exceed ``far``; infinity where none achieves it.
        threshold_low: lower end of its bootstrap interval.
        threshold_high: upper end.
        tar: true-accept rate at ``threshold``.
        tar_low: lower end of its bootstrap interval.
        tar_high: upper end.
        supported: whether the set has enough impostor pairs to speak of this FAR (see `Roc.supports`).
    """

    far: float
    threshold: float
    threshold_low: float
    threshold_high: float
    tar: float
    tar_low: float
    tar_high: float
    supported: bool

    @property
    def usable(self) -> bool:
        """Whether the threshold may be handed on: the set supports it, and it and its interval are finite."""
        return self.supported and bool(
            np.isfinite([self.threshold, self.threshold_low, self.threshold_high]).all()
        )


def threshold_at_far(
    scores: FloatArray,
    is_genuine: BoolArray,
    far: float,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> OperatingPoint:
    """Threshold and TAR at a false-accept rate with bootstrap intervals: `operating_point` of the scores."""
    return operating_point(roc(scores, is_genuine), far, num_resamples, confidence, seed)


def operating_point(
    curve: Roc, far: float, num_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> OperatingPoint:
    """Threshold and TAR at a false-accept rate, with percentile bootstrap intervals.

    Genuine and impostor pairs are resampled with replacement. Only two numbers of a resample matter, and both
    have a closed distribution, so they are sampled directly, for any N: the rank (in the original order) of
    its k-th largest impostor score is ``ceil(n U)``, U the k-th smallest of n uniforms: Beta(k, n - k + 1);
    and its number of accepted genuine pairs is binomial. Pairs that share images are not independent, so the
    true interval is somewhat wider.

    Raises:
        ValueError: a rate outside (0, 1], a confidence outside (0, 1), fewer than one resample.
    """
    if not 0 < confidence < 1 or num_resamples < 1:
        raise ValueError(
            f"confidence {confidence} with {num_resamples} resamples does not define an interval; "
            "use a confidence between 0 and 1 and at least one resample"
        )
    index = curve.index_at(far)
    n = curve.num_impostor
    rejected = int(far * n * ROUND_UP) + 1  # the threshold lies just above the impostor score of this rank
    generator = np.random.default_rng(seed)
    if rejected > n:
        index_R = np.full(num_resamples, index)
    else:
        rank_R = np.ceil(n * generator.beta(rejected, n - rejected + 1, num_resamples))
        # Point i accepts far[i] * n impostors; the last one with fewer than ``rank`` rejects that score.
        index_R = np.searchsorted(np.round(curve.far * n), rank_R, side="left") - 1
    tar_R = generator.binomial(curve.num_genuine, curve.tar[index_R]) / curve.num_genuine
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    # Observed values, not interpolated ones: infinity (nothing is accepted) is a possible threshold.
    threshold_low, threshold_high = np.quantile(curve.thresholds[index_R], tails, method="inverted_cdf")
    tar_low, tar_high = np.quantile(tar_R, tails)
    return OperatingPoint(
        far=far,
        threshold=float(curve.thresholds[index]),
        threshold_low=float(threshold_low),
        threshold_high=float(threshold_high),
        tar=float(curve.tar[index]),
        tar_low=float(tar_low),
        tar_high=float(tar_high),
        supported=curve.supports(far),
    )
