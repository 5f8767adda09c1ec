"""Accuracy of pairs by folds: each fold is scored at the threshold that is best on all the others.

Shapes: N pairs, F folds, T thresholds of a grid. ``x_FN[f]`` is what fold f measures between the images of
each pair; all rows are equal unless something (a projection) was fitted on the training pairs of each fold.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.histogram import histogram_roc

VAL_FAR = 1e-3  # the false-accept rate at which insightface prints its "VAL"


@dataclass(frozen=True)
class PairResult:
    """Accuracy of a pair protocol, fold by fold.

    Attributes:
        folds: (F,) test accuracy of each fold.
        thresholds: (F,) the threshold each fold took from the other folds; a squared distance (accept below
            it) under the rule "insightface", a cosine (accept from it on) under the others.
        val: mean true-accept rate at the threshold that gives FAR 1e-3 on the other folds, over the folds
            that have genuine pairs. Only the rule "insightface" defines it, and the next three.
        val_std: its population standard deviation over the folds.
        far: mean false-accept rate that those thresholds really gave, over the folds with impostor pairs.
        val_thresholds: (F,) those thresholds, squared distances.
    """

    folds: FloatArray
    thresholds: FloatArray
    val: float | None = None
    val_std: float | None = None
    far: float | None = None
    val_thresholds: FloatArray | None = None

    @property
    def mean(self) -> float:
        """Mean accuracy over the folds."""
        return float(self.folds.mean())

    @property
    def std(self) -> float:
        """Population standard deviation over the folds, as insightface prints it."""
        return float(self.folds.std())

    @property
    def standard_error(self) -> float:
        """``std / sqrt(F)``, which F2C and the LFW page print as the deviation."""
        return self.std / float(np.sqrt(len(self.folds)))


def contiguous_folds(num_pairs: int, num_folds: int) -> IntArray:
    """Fold number (num_pairs,) of every pair when the list is cut into consecutive, unshuffled parts.

    The first ``num_pairs % num_folds`` folds hold one pair more.

    Raises:
        ValueError: fewer than two folds, or fewer pairs than folds.
    """
    if not 2 <= num_folds <= num_pairs:
        raise ValueError(
            f"{num_pairs} pairs do not make {num_folds} folds; use two folds or more, and a pair for each"
        )
    sizes = np.full(num_folds, num_pairs // num_folds)
    sizes[: num_pairs % num_folds] += 1
    return np.repeat(np.arange(num_folds, dtype=np.int64), sizes)


def one_sided_folds(is_same: BoolArray, fold_of_N: IntArray) -> int:
    """How many folds hold genuine pairs only, or impostor pairs only."""
    return sum(len(np.unique(is_same[fold])) < 2 for fold in _fold_masks(fold_of_N))


def num_accepted(distances: FloatArray, thresholds: FloatArray) -> IntArray:
    """How many ``distances`` (n,) are strictly below each of the ascending ``thresholds`` (T,)."""
    return np.searchsorted(np.sort(distances), thresholds, side="left")


def insightface_folds(distance_FN: FloatArray, is_same: BoolArray, fold_of_N: IntArray) -> PairResult:
    """The rule of insightface's verification script, on squared distances of unit vectors.

    Accept strictly below the threshold: the first of 0, 0.01, ..., 3.99 that is most accurate in training.
    VAL takes thresholds 0, 0.001, ..., 3.999, interpolated linearly over the training FAR, and 0 where none
    reaches the FAR. The original fails under SciPy > 1.5; these are its values under SciPy 1.5.
    """
    grid, val_grid = np.arange(0, 4, 0.01), np.arange(0, 4, 0.001)
    rows = []
    for distance_N, test in zip(distance_FN, _fold_masks(fold_of_N), strict=True):
        train_genuine, train_impostor = distance_N[~test & is_same], distance_N[~test & ~is_same]
        genuine, impostor = distance_N[test & is_same], distance_N[test & ~is_same]
        correct = num_accepted(train_genuine, grid) - num_accepted(train_impostor, grid)
        threshold = grid[np.argmax(correct)]
        accuracy = (np.sum(genuine < threshold) + np.sum(impostor >= threshold)) / test.sum()
        train_far = num_accepted(train_impostor, val_grid) / max(len(train_impostor), 1)
        val_threshold = np.interp(VAL_FAR, train_far, val_grid) if train_far.max() >= VAL_FAR else 0.0
        val, far = (np.sum(x < val_threshold) / len(x) if len(x) else np.nan for x in (genuine, impostor))
        rows.append((accuracy, threshold, val, far, val_threshold))
    folds, thresholds, val_F, far_F, val_thresholds = np.array(rows).T
    val_F, far_F = val_F[~np.isnan(val_F)], far_F[~np.isnan(far_F)]  # of the folds that have such pairs
    return PairResult(
        folds,
        thresholds,
        val=float(val_F.mean()) if len(val_F) else None,
        val_std=float(val_F.std()) if len(val_F) else None,
        far=float(far_F.mean()) if len(far_F) else None,
        val_thresholds=val_thresholds,
    )


def balanced_histogram_folds(cosine_FN: FloatArray, is_same: BoolArray, fold_of_N: IntArray) -> PairResult:
    """F2C's rule for LFW and CFP: the histogram bin with the best ``(TAR + 1 - FAR) / 2`` in training."""

    def choose(cosine_n: FloatArray, is_same_n: BoolArray) -> float:
        curve = histogram_roc(cosine_n, is_same_n)
        return float(curve.thresholds[np.argmax((curve.tar + 1 - curve.far) / 2)])

    return _cosine_folds(choose, cosine_FN, is_same, fold_of_N)


def exhaustive_folds(cosine_FN: FloatArray, is_same: BoolArray, fold_of_N: IntArray) -> PairResult:
    """F2C's rule for YTF: the first training score that, used as threshold, is most accurate in training."""

    def choose(cosine_n: FloatArray, is_same_n: BoolArray) -> float:
        genuine, impostor = np.sort(cosine_n[is_same_n]), np.sort(cosine_n[~is_same_n])
        correct = np.searchsorted(impostor, cosine_n) - np.searchsorted(genuine, cosine_n)
        return float(cosine_n[np.argmax(correct)])

    return _cosine_folds(choose, cosine_FN, is_same, fold_of_N)


def facex_folds(cosine_FN: FloatArray, is_same: BoolArray, fold_of_N: IntArray) -> PairResult:
    """FaceX-Zoo's rule: the first of 1,000 thresholds over the training scores with the best ``TAR - FAR``.

    A pair is genuine strictly above the threshold and an impostor strictly below; one on it counts as wrong.
    """
    folds, thresholds = [], []
    for cosine_N, test in zip(cosine_FN, _fold_masks(fold_of_N), strict=True):
        train, same = cosine_N[~test], is_same[~test]
        low, high = train.min(), train.max()
        grid = low + (high - low) / 1000 * np.arange(1, 1001)
        genuine, impostor = np.sort(train[same]), np.sort(train[~same])
        gap = [np.searchsorted(part, grid, side="right") / max(len(part), 1) for part in (impostor, genuine)]
        threshold = grid[np.argmax(gap[0] - gap[1])]
        right = np.where(is_same[test], cosine_N[test] > threshold, cosine_N[test] < threshold)
        folds.append(np.mean(right))
        thresholds.append(threshold)
    return PairResult(np.array(folds), np.array(thresholds))


@dataclass(frozen=True)
class PairRule:
    """How a fold takes its threshold from the others.

    Attributes:
        folds: what (F, N), genuine (N,), fold (N,) -> result.
        meaning: one sentence for people.
        deviation: what the origin of the rule prints behind the accuracy.
        is_distance: whether pairs are measured by squared distance, not by cosine.
    """

    folds: Callable[[FloatArray, BoolArray, IntArray], PairResult]
    meaning: str
    deviation: Callable[[PairResult], float]
    is_distance: bool = False


PAIR_RULES: dict[str, PairRule] = {
    "insightface": PairRule(
        insightface_folds,
        "squared distance, thresholds 0, 0.01, ..., 3.99, best training accuracy; population deviation",
        lambda result: result.std,
        is_distance=True,
    ),
    "facex": PairRule(
        facex_folds,
        "cosine, 1,000 thresholds over the training scores, best TAR - FAR; standard error (n - 1)",
        lambda result: float(result.folds.std(ddof=1) / np.sqrt(len(result.folds))),
    ),
    "ffc": PairRule(
        balanced_histogram_folds,
        "cosine, 1,000 histogram bins, best balanced training accuracy; standard error",
        lambda result: result.standard_error,
    ),
    "ffc_video": PairRule(
        exhaustive_folds,
        "cosine, every training score as threshold, best training accuracy; standard error",
        lambda result: result.standard_error,
    ),
}


def _cosine_folds(
    choose: Callable[[FloatArray, BoolArray], float],
    cosine_FN: FloatArray,
    is_same: BoolArray,
    fold_of_N: IntArray,
) -> PairResult:
    folds, thresholds = [], []
    for cosine_N, test in zip(cosine_FN, _fold_masks(fold_of_N), strict=True):
        threshold = choose(cosine_N[~test], is_same[~test])
        folds.append(np.mean((cosine_N[test] >= threshold) == is_same[test]))
        thresholds.append(threshold)
    return PairResult(np.array(folds), np.array(thresholds))


def _fold_masks(fold_of_N: IntArray) -> list[BoolArray]:
    return [fold_of_N == fold for fold in np.unique(fold_of_N)]
