"""Verification figures from embeddings or scores (numpy only): pair accuracy here, the others by name.

Shapes: N pairs, D embedding width, F folds.
"""

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.fold_rules import PAIR_RULES, PairResult, PairRule, contiguous_folds
from facescale.evaluate.operating_point import OperatingPoint, operating_point, threshold_at_far
from facescale.evaluate.roc import FAR_RULES, MIN_FALSE_ACCEPTS, ROUND_UP, Roc, roc, tar_at_far
from facescale.evaluate.rows import require_finite, unit_rows
from facescale.registry import lookup

__all__ = [
    "FAR_RULES",
    "MIN_FALSE_ACCEPTS",
    "PAIR_RULES",
    "ROUND_UP",
    "OperatingPoint",
    "PairResult",
    "PairRule",
    "Roc",
    "operating_point",
    "pair_accuracy",
    "require_finite",
    "roc",
    "tar_at_far",
    "threshold_at_far",
    "unit_rows",
]


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
        rule: how a fold takes its threshold from the others: a key of `PAIR_RULES`, which explains each.
        num_folds: number of folds, cut in the order of the pairs.
        pca: project onto this many principal components of each fold's training pairs, then normalise again.
        fold_ids: (N,) fold of each pair, in place of ``num_folds`` equal parts.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, an unknown rule, impossible folds.
    """
    by = lookup("rule", PAIR_RULES, rule)
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
        measured_FN = np.broadcast_to(_measure(x_ND, by), (len(folds), len(is_same)))
    else:
        measured_FN = np.stack(
            [_measure(_project(x_ND, np.repeat(fold_of_N != fold, 2), pca), by) for fold in folds]
        )
    return by.folds(measured_FN, is_same, fold_of_N)


def _measure(x_ND: FloatArray, rule: PairRule) -> FloatArray:
    a_ND, b_ND = x_ND[0::2], x_ND[1::2]
    measured_N: FloatArray = (np.square(a_ND - b_ND) if rule.is_distance else a_ND * b_ND).sum(axis=1)
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
