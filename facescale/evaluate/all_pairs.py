"""Verification over every pair of a set: exact TAR at very low false-accept rates, counted in blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.highest import Highest
from facescale.evaluate.roc import MIN_FALSE_ACCEPTS, ROUND_UP

# N images, D embedding size

BLOCK = 2048  # images compared with as many at once
MOST_KEPT = 50_000_000  # impostor scores that may have to be in memory


@dataclass(frozen=True)
class AllPairs:
    """Exact figures over all pairs of images.

    Attributes:
        num_genuine: pairs of one person.
        num_impostor: pairs of two people.
        tar: true-accept rate by false-accept rate, for those that the set supports.
        thresholds: by false-accept rate: a pair is accepted if its cosine is higher.
        unsupported: false-accept rates with fewer than ten false accepts, or too many to keep.
    """

    num_genuine: int
    num_impostor: int
    tar: dict[float, float]
    thresholds: dict[float, float]
    unsupported: tuple[float, ...]


def verify_all_pairs(unit_ND: FloatArray, ids: IntArray, fars: Sequence[float]) -> AllPairs:
    """Compare every image with every other one (MFR-ALL's protocol, ICCV 2021 workshop, arXiv 2108.08191).

    Memory follows the number of genuine pairs and of false accepts at the largest rate, not the number of
    pairs: of the impostor scores only the highest are kept.

    Args:
        unit_ND: rows of length 1.
        ids: int64 (N,), identity of each.
        fars: false-accept rates.

    Raises:
        ValueError: nobody has two images, or there is one person only.
    """
    _, counts = np.unique(ids, return_counts=True)
    num_genuine = int((counts.astype(object) * (counts - 1) // 2).sum())
    num_impostor = len(ids) * (len(ids) - 1) // 2 - num_genuine
    if not num_genuine or not num_impostor:
        raise ValueError(
            f"{len(ids)} images of {len(counts)} people make {num_genuine} genuine and {num_impostor} "
            "impostor pairs; both kinds are needed"
        )
    allowed = {far: int(far * num_impostor * ROUND_UP) for far in fars}
    supported = {far: n for far, n in allowed.items() if MIN_FALSE_ACCEPTS <= n <= MOST_KEPT}
    highest = Highest(max(supported.values(), default=0) + 1)
    genuine = []
    order = np.argsort(ids, kind="stable")
    x_ND, id_N = unit_ND[order].astype(np.float32, copy=False), ids[order]
    for first in range(0, len(x_ND), BLOCK):
        rows = slice(first, first + BLOCK)
        for second in range(first, len(x_ND), BLOCK):
            columns = slice(second, second + BLOCK)
            score_RC = x_ND[rows] @ x_ND[columns].T
            is_pair_RC = np.ones(score_RC.shape, bool)
            if first == second:
                is_pair_RC = np.triu(is_pair_RC, 1)
            if id_N[rows][-1] >= id_N[columns][0]:  # people are in order: only neighbours share one
                is_same_RC = id_N[rows][:, None] == id_N[columns]
                genuine.append(score_RC[is_pair_RC & is_same_RC])
                is_pair_RC &= ~is_same_RC
            highest.add(score_RC[is_pair_RC & (score_RC > highest.bound)])
    genuine_scores, ranked = np.concatenate(genuine), highest.ranked()
    thresholds = {far: float(ranked[n]) if n < len(ranked) else -1.0 for far, n in supported.items()}
    return AllPairs(
        num_genuine=num_genuine,
        num_impostor=num_impostor,
        tar={far: float(np.mean(genuine_scores > t)) for far, t in thresholds.items()},
        thresholds=thresholds,
        unsupported=tuple(far for far in fars if far not in supported),
    )
