"""People of a test set who are in the training set: a figure measured on them says nothing about strangers.

N images, C identities of the training set; T people of the test set; K neighbours.
"""

from dataclasses import dataclass

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.clean.centres import Centres, Floats
from facescale.clean.search import NOBODY, nearest
from facescale.clean.threshold import Threshold, threshold_for

_COHORT = 10  # further identities that tell how close others usually are
_MOST_PLANTED = 20_000  # images


@dataclass(frozen=True)
class SharedPeople:
    """Pairs of a person of the test set and an identity of the training set, each the other's nearest.

    Attributes:
        person_P: of the test set.
        identity_P: of the training set.
        score_P: their cosine minus the mean of those to other close people, on both sides.
        threshold: scores from it on are one person.
    """

    person_P: IntArray
    identity_P: IntArray
    score_P: FloatArray
    threshold: Threshold

    @property
    def found(self) -> IntArray:
        """Places of the pairs that are taken for one person, the clearest first."""
        return self.threshold.reached(self.score_P)


def shared_people(
    unit_ND: Floats,
    ids: IntArray,
    centres: Centres,
    person_TD: Floats,
    precision: float,
    score: float | None = None,
) -> SharedPeople:
    """Search every person of a test set among the identities: time T times C, memory one block.

    For the threshold, images of the training set are searched as if they were of the test set, each
    compared with its own identity without it.

    Args:
        unit_ND: unit rows of the training set.
        ids: (N,), 0 to C - 1.
        centres: of the identities.
        person_TD: unit centres of the people of the test set.
        precision: expected fraction of real ones among what is found.
        score: the threshold, if it is set by hand.
    """
    cosine_TK, place_TK = nearest(person_TD, centres.unit_CD, _COHORT + 1)
    cosine_CK, place_CK = nearest(centres.unit_CD, person_TD, _COHORT + 1)
    usual_T, usual_C = _mean(cosine_TK[:, 1:]), _mean(cosine_CK[:, 1:])
    best_T, score_T = _best(cosine_TK, place_TK, usual_T, usual_C)
    best_C, _ = _best(cosine_CK, place_CK, usual_C, usual_T)
    mutual = np.flatnonzero((best_C[best_T] == np.arange(len(best_T))) & np.isfinite(score_T))
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(_MOST_PLANTED, len(ids))).astype(np.int64))
    chosen = chosen[np.bincount(ids)[ids[chosen]] > 1]  # without another image there is no own centre
    others_MK, _ = nearest(unit_ND[chosen], centres.unit_CD, _COHORT, ids[chosen])
    planted_M = centres.own_N[chosen] - (_mean(others_MK) + usual_C[ids[chosen]]) / 2
    threshold = threshold_for(score_T[mutual], planted_M, precision, score)
    return SharedPeople(mutual, best_T[mutual], score_T[mutual], threshold)


def _best(
    cosine_QK: Floats, place_QK: IntArray, usual_Q: FloatArray, usual_G: FloatArray
) -> tuple[IntArray, FloatArray]:
    """Of the nearest rows of each query the one with the best score, and that score; -inf: none."""
    score_QK = cosine_QK - (usual_Q[:, None] + usual_G[place_QK]) / 2
    score_QK = np.where(cosine_QK > NOBODY, score_QK, -np.inf)
    best = score_QK.argmax(axis=1)[:, None]
    return np.take_along_axis(place_QK, best, 1)[:, 0], np.take_along_axis(score_QK, best, 1)[:, 0]


def _mean(cosine_QK: Floats) -> FloatArray:
    """Of the cosines that exist; 0 where none does."""
    real = cosine_QK > NOBODY
    mean: FloatArray = np.where(real, cosine_QK, 0).sum(axis=1) / np.maximum(real.sum(axis=1), 1)
    return mean
