"""Verification over every pair of a set: exact TAR at very low false-accept rates, counted in blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.highest import Highest
from facescale.evaluate.identity_points import ScoredPairs, identity_point
from facescale.evaluate.intervals import PairTotals
from facescale.evaluate.operating_point import OperatingPoint
from facescale.evaluate.roc import MIN_FALSE_ACCEPTS, ROUND_UP
from facescale.evaluate.scored import ImagePairs

# N images, D embedding size

BLOCK = 2048  # images compared with as many at once
MOST_COUNTED = 300_000  # false accepts of which the people are counted, for intervals
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
        points: intervals by false-accept rate, for pairs that share people; not for rates with more than
            ``MOST_COUNTED`` false accepts.
        genuine: all genuine pairs.
        highest: the impostor pairs with the highest scores, more than any rate of ``points`` accepts.
    """

    num_genuine: int
    num_impostor: int
    tar: dict[float, float]
    thresholds: dict[float, float]
    unsupported: tuple[float, ...]
    points: dict[float, OperatingPoint]
    genuine: ImagePairs
    highest: ImagePairs


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
    _, person_N, counts = np.unique(ids, return_inverse=True, return_counts=True)
    num_genuine = int((counts.astype(object) * (counts - 1) // 2).sum())
    num_impostor = len(ids) * (len(ids) - 1) // 2 - num_genuine
    if not num_genuine or not num_impostor:
        raise ValueError(
            f"{len(ids)} images of {len(counts)} people make {num_genuine} genuine and {num_impostor} "
            "impostor pairs; both kinds are needed"
        )
    allowed = {far: int(far * num_impostor * ROUND_UP) for far in fars}
    supported = {far: n for far, n in allowed.items() if MIN_FALSE_ACCEPTS <= n <= MOST_KEPT}
    counted = max((n for n in supported.values() if n <= MOST_COUNTED), default=0)
    highest = Highest(max([2 * counted, *supported.values()], default=0) + 1)  # intervals look further down
    genuine, genuine_rows = [], []
    order = np.argsort(person_N, kind="stable")
    x_ND, id_N = unit_ND[order].astype(np.float32, copy=False), person_N[order]
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
                row, column = np.nonzero(is_pair_RC & is_same_RC)
                genuine.append(score_RC[row, column])
                genuine_rows.append(np.stack([first + row, second + column]).astype(np.int32))
                is_pair_RC &= ~is_same_RC
            row, column = np.nonzero(is_pair_RC & (score_RC > highest.bound))
            highest.add(score_RC[row, column], (first + row) * len(ids) + second + column)
    genuine_scores, (mate, other) = np.concatenate(genuine), np.concatenate(genuine_rows, axis=1)
    ranked, tags = highest.ranked_with_tags()
    listed = slice(4 * counted + 1)  # of the others only the scores matter
    a, b = np.divmod(tags[listed], len(ids))
    thresholds = {far: float(ranked[n]) if n < len(ranked) else -1.0 for far, n in supported.items()}
    return AllPairs(
        num_genuine=num_genuine,
        num_impostor=num_impostor,
        tar={far: float(np.mean(genuine_scores > t)) for far, t in thresholds.items()},
        thresholds=thresholds,
        unsupported=tuple(far for far in fars if far not in supported),
        points=_points(
            ScoredPairs.of(genuine_scores, id_N[mate], id_N[mate]),
            ScoredPairs(
                ranked[listed],
                id_N[a],
                id_N[b],
                PairTotals.of_all_impostors(counts),
                np.arange(len(counts)),
            ),
            {far: t for far, t in thresholds.items() if supported[far] <= MOST_COUNTED},
        ),
        genuine=ImagePairs(genuine_scores, order[mate], order[other]),
        highest=ImagePairs(ranked[listed], order[a], order[b]),
    )


def _points(
    genuine: ScoredPairs, impostor: ScoredPairs, thresholds: dict[float, float]
) -> dict[float, OperatingPoint]:
    """Intervals: a pair is accepted above the threshold here, and in `identity_point` from it on."""
    return {
        far: identity_point(genuine, impostor, far, float(np.nextafter(np.float32(t), np.float32(2))), True)
        for far, t in thresholds.items()
    }
