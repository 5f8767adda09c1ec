"""Intervals of the figures of a pair protocol. N pairs."""

from collections.abc import Sequence

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.fold_rules import PAIR_RULES, PairResult
from facescale.evaluate.identity_points import identity_point
from facescale.evaluate.intervals import mean_interval
from facescale.evaluate.operating_point import OperatingPoint
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.roc import Roc
from facescale.evaluate.scored import ScoredImages

MOST_LISTED = 20_000  # pairs that a result lists one by one


def points_of(scored: ScoredImages, curve: Roc, fars: Sequence[float]) -> tuple[OperatingPoint, ...]:
    """Threshold, TAR and their intervals at each false-accept rate."""
    return tuple(
        identity_point(
            scored.genuine_people,
            scored.impostor_people,
            far,
            float(curve.thresholds[curve.index_at(far)]),
            curve.supports(far),
        )
        for far in fars
    )


def accuracy_interval(
    pairs: Pairs, person: IntArray, scores: FloatArray, accuracy: PairResult, rule: str
) -> tuple[float, float]:
    """Of the share of pairs that are right at the threshold of their fold; ``person`` is on each image."""
    right_N = _are_right(pairs, scores, accuracy, rule)
    share = mean_interval(right_N, person[pairs.a], person[pairs.b])
    return share.low, share.high


def listed_pairs(
    pairs: Pairs, person: IntArray, scores: FloatArray, accuracy: PairResult, rule: str
) -> dict[str, list[int] | list[float]]:
    """Which pairs are right, their scores, and who is in them, to compare models pair by pair."""
    columns = {
        "right": _are_right(pairs, scores, accuracy, rule),
        "same": pairs.is_same,
        "first": person[pairs.a],
        "second": person[pairs.b],
    }
    listed = {name: column.astype(np.int64).tolist() for name, column in columns.items()}
    return {**listed, "score": [round(float(score), 6) for score in scores]}


def _are_right(pairs: Pairs, scores: FloatArray, accuracy: PairResult, rule: str) -> BoolArray:
    threshold_N = accuracy.thresholds[np.unique(pairs.fold, return_inverse=True)[1]]
    by_distance = PAIR_RULES[rule].is_distance
    accepted = 2 - 2 * scores < threshold_N if by_distance else scores >= threshold_N
    right: BoolArray = accepted == pairs.is_same
    return right
