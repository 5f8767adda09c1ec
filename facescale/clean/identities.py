"""Identities that are one person under two names, or two people under one.

N images, C identities, D embedding size.
"""

from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.clean.centres import Centres, Floats, robust_centres
from facescale.clean.search import NOBODY, nearest
from facescale.clean.threshold import Threshold, threshold_for
from facescale.evaluate.rows import unit_rows

MIN_HALF = 3  # images of each part of an identity
_COHORT = 10  # neighbours that tell how close other people usually are
_LEAST_PART = 0.1  # of the images of an identity; less are single wrong labels
_LEAST_LEFT = 0.7  # of the images of an identity, to be clustered without outliers
_ROUNDS = 10  # of the clustering
_MOST_PLANTED = 5000  # joined identities


@dataclass(frozen=True)
class Splits:
    """Pairs of identities that may be one person.

    Attributes:
        first_P: one identity of each pair.
        second_P: the other, the nearest to it; and the other way round.
        score_P: their cosine minus that to other close identities.
        threshold: scores from it on are one person.
    """

    first_P: IntArray
    second_P: IntArray
    score_P: FloatArray
    threshold: Threshold

    def partners(self, num_ids: int) -> IntArray:
        """The other identity of the same person for each, (C,); the identity itself where none was found."""
        partner_C = np.arange(num_ids)
        first, second = self.first_P[self.found], self.second_P[self.found]
        partner_C[first], partner_C[second] = second, first
        return partner_C

    @property
    def found(self) -> IntArray:
        """Places of the pairs that are taken for one person, the clearest first."""
        return self.threshold.reached(self.score_P)


@dataclass(frozen=True)
class Merges:
    """The smaller part of each identity, if its images fall into two.

    Attributes:
        score_C: cosine of the smaller part to the nearest other identity minus that to the larger part; -inf
            where an identity has too few images.
        part_N: whether an image is in the smaller part.
        nearest_C: identity that is nearest to the smaller part.
        threshold: scores from it on are two people.
    """

    score_C: FloatArray
    part_N: IntArray
    nearest_C: IntArray
    threshold: Threshold

    @property
    def found(self) -> IntArray:
        """Identities that are taken for two people, the clearest first."""
        return self.threshold.reached(self.score_C)


def find_splits(
    unit_ND: Floats, ids: IntArray, centres: Centres, precision: float, score: float | None = None
) -> Splits:
    """Pairs of identities that are each other's nearest: time C squared, memory one block of cosines.

    For the threshold, identities are cut into two random halves.

    Args:
        unit_ND: unit rows.
        ids: (N,), 0 to C - 1.
        centres: of the identities.
        precision: expected fraction of real ones among what is found.
        score: the threshold, if it is set by hand.
    """
    number = np.arange(len(centres.unit_CD))
    value_CK, place_CK = nearest(centres.unit_CD, centres.unit_CD, _COHORT + 1, number)
    partner = place_CK[:, 0]
    mutual = np.flatnonzero((partner[partner] == number) & (number < partner) & (value_CK[:, 0] > NOBODY))
    usual_C = _usual(value_CK[:, 1:])
    score_P = value_CK[mutual, 0] - (usual_C[mutual] + usual_C[partner[mutual]]) / 2
    planted = _planted_splits(unit_ND, ids, value_CK)
    return Splits(mutual, partner[mutual], score_P, threshold_for(score_P, planted, precision, score))


def _usual(value_CK: Floats) -> FloatArray:
    """Mean cosine of each identity to its cohort; 0 where there is none."""
    real = value_CK > NOBODY
    mean: FloatArray = np.where(real, value_CK, 0).sum(axis=1) / np.maximum(real.sum(axis=1), 1)
    return mean


def _planted_splits(unit_ND: Floats, ids: IntArray, value_CK: Floats) -> FloatArray:
    """Scores of the random halves of each identity that has enough images."""
    counts = np.bincount(ids)
    enough = np.flatnonzero(counts >= 2 * MIN_HALF)
    rows = np.flatnonzero(counts[ids] >= 2 * MIN_HALF)
    if not len(rows):
        return np.empty(0)
    identity = np.searchsorted(enough, ids[rows])
    order = np.lexsort((np.random.default_rng(0).random(len(rows)), identity))
    start = np.cumsum(counts[enough]) - counts[enough]
    rank = np.empty(len(rows), np.int64)
    rank[order] = np.arange(len(rows)) - np.repeat(start, counts[enough])
    half_CD = robust_centres(unit_ND[rows], 2 * identity + rank % 2).unit_CD
    cosine_C = (half_CD[0::2] * half_CD[1::2]).sum(axis=1)
    planted: FloatArray = cosine_C - _usual(value_CK[enough, :_COHORT])
    return planted


def find_merges(
    unit_ND: Floats, ids: IntArray, centres: Centres, precision: float, score: float | None = None
) -> Merges:
    """Identities whose images fall into two groups, the smaller of them nearer to someone else.

    For the threshold, pairs of identities are joined.

    Args:
        unit_ND: unit rows.
        ids: (N,), 0 to C - 1.
        centres: of the identities.
        precision: expected fraction of real ones among what is found.
        score: the threshold, if it is set by hand.
    """
    counts = np.bincount(ids)
    order, start_C = np.argsort(ids, kind="stable"), np.cumsum(counts) - counts
    rows_of = [order[start : start + count] for start, count in zip(start_C, counts, strict=True)]
    part_N = np.zeros(len(ids), bool)
    small_CD, own_C = np.zeros_like(centres.unit_CD), np.full(len(counts), np.nan)
    for identity, rows in enumerate(rows_of):
        in_part, small_CD[identity], own_C[identity] = _smaller_part(unit_ND[rows])
        part_N[rows[in_part]] = True
    value_C1, place_C1 = nearest(small_CD, centres.unit_CD, 1, np.arange(len(counts)))
    score_C = np.where(np.isnan(own_C), -np.inf, value_C1[:, 0] - own_C)
    planted = _planted_merges(unit_ND, rows_of, centres)
    judged = np.isfinite(score_C)
    return Merges(score_C, part_N, place_C1[:, 0], threshold_for(score_C[judged], planted, precision, score))


def _planted_merges(unit_ND: Floats, rows_of: list[IntArray], centres: Centres) -> FloatArray:
    draw = np.random.default_rng(0)
    enough = np.array([n for n, rows in enumerate(rows_of) if len(rows) >= MIN_HALF + 1], np.int64)
    if len(enough) < 3:
        return np.empty(0)
    chosen = draw.permutation(enough)[:_MOST_PLANTED]
    small, own, joined, other = [], [], [], []
    for place, first in enumerate(chosen.tolist()):
        second = int(chosen[place - 1])
        guests = draw.permutation(rows_of[second])[: max(MIN_HALF, len(rows_of[first]) // 2)]
        _, centre_D, cosine = _smaller_part(unit_ND[np.concatenate([rows_of[first], guests])])
        if not np.isnan(cosine):
            small.append(centre_D)
            own.append(cosine)
            joined.append(first)
            other.append(second)
    if not small:
        return np.empty(0)
    value, place_K = nearest(np.stack(small), centres.unit_CD, 3)
    strange = (place_K != np.array(joined)[:, None]) & (place_K != np.array(other)[:, None])
    best = np.where(strange, value, NOBODY).max(axis=1)
    planted: FloatArray = best - np.array(own)
    return planted


def _smaller_part(unit_MD: Floats) -> tuple[IntArray, Floats, float]:
    """The smaller of two clusters of an identity's images: who, its centre, cosine to the larger one.

    Single images that are unlike all others would be clusters of their own: they are left out, and the rest
    is clustered again. The cosine is nan where no two parts of enough images are found.
    """
    left = np.arange(len(unit_MD))
    least = max(MIN_HALF, _LEAST_PART * len(unit_MD))
    while len(left) >= max(2 * MIN_HALF, _LEAST_LEFT * len(unit_MD)):
        is_small, ends_2D = _two_clusters(unit_MD[left])
        if not is_small.any():
            break
        if is_small.sum() >= least:
            return left[is_small], ends_2D[0], float(ends_2D[0] @ ends_2D[1])
        left = left[~is_small]
    return np.empty(0, np.int64), np.zeros(unit_MD.shape[1], np.float32), np.nan


def _two_clusters(unit_MD: Floats) -> tuple[BoolArray, Floats]:
    """Spherical 2-means from two images that are far apart: who is in the smaller, both centres (2, D)."""
    first = int(np.argmin(unit_MD @ unit_MD.mean(axis=0)))
    second = int(np.argmin(unit_MD @ unit_MD[first]))
    ends_2D, label = unit_MD[[first, second]], np.full(len(unit_MD), -1)
    for _ in range(_ROUNDS):
        new = np.argmax(unit_MD @ ends_2D.T, axis=1)
        if (new == label).all() or new.min() == new.max():
            break
        label = new
        ends_2D = unit_rows(np.stack([unit_MD[label == part].mean(axis=0) for part in (0, 1)])).astype(
            np.float32
        )
    if label.min() < 0:
        return np.zeros(len(unit_MD), bool), ends_2D
    small = int(np.argmin(np.bincount(label, minlength=2)))
    return label == small, ends_2D[[small, 1 - small]]
