"""How much each person moves TAR at a false-accept rate, so that two models can be compared on one set.

A person who is counted once more changes TAR by the residual of their genuine pairs, and, through the
threshold, by that of their impostor pairs times the slope of the ROC. The variance of a difference between
two models is the sum over people of the squared difference of what each moves (the infinitesimal jackknife);
a pair of two people is counted with both, which makes it slightly larger than it is. P people.
"""

import hashlib
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.identity_points import ScoredPairs
from facescale.evaluate.intervals import CONFIDENCE
from facescale.evaluate.significance import Difference

MOST_PEOPLE = 50_000  # of whom a result keeps what each moves
_AROUND = 1.5  # the slope is taken between this many times fewer and more false accepts
_MIN_P = 1e-6


def tar_influence(
    genuine: ScoredPairs, impostor: ScoredPairs, people: IntArray, far: float, threshold: float
) -> FloatArray:
    """What each person adds to TAR (P,).

    Args:
        genuine: all genuine pairs.
        impostor: the impostor pairs with the highest scores, more than ``far`` accepts.
        people: (P,) ascending numbers of all people.
        far: the false-accept rate.
        threshold: accepts about that share.
    """
    moved_P = np.zeros(len(people))
    num_impostor = impostor.totals.num_pairs
    fewer, more = (int(far * num_impostor * times) for times in (1 / _AROUND, _AROUND))
    more = min(more, len(impostor.scores) - 1)
    tar = [genuine.from_score(float(impostor.scores[count])).rate for count in (fewer, more)]
    slope = (tar[1] - tar[0]) * num_impostor / max(more - fewer, 1)
    for pairs, weight in ((genuine, 1.0), (impostor, -slope)):
        place = np.searchsorted(people, pairs.people)
        moved_P[place] += weight * pairs.residuals(threshold) / pairs.totals.num_pairs
    return moved_P


def kept_influences(moved: Mapping[str, FloatArray], *columns: IntArray) -> dict[str, Any]:
    """Curves of a result: what each person adds to figures, with a digest of what was compared.

    Args:
        moved: (P,) by the name of the figure.
        columns: numbers that are the same for the same pairs of the same people.
    """
    if not moved or len(next(iter(moved.values()))) > MOST_PEOPLE:
        return {}
    digest = hashlib.sha256()
    for column in columns:
        digest.update(np.ascontiguousarray(column, np.int64).tobytes())
    figures = {name: [float(f"{x:.4g}") for x in moved_P] for name, moved_P in moved.items()}
    return {"people": {"digest": digest.hexdigest()[:16], "moved": figures}}


def influence_difference(
    first: float, second: float, moved_first: FloatArray, moved_second: FloatArray
) -> Difference:
    """Compare a figure of two models by what each person (P,) adds to it."""
    value, people = second - first, len(moved_first)
    spread = float(np.linalg.norm(moved_second - moved_first)) * (people / max(people - 1, 1)) ** 0.5
    normal = NormalDist()
    half = normal.inv_cdf((1 + CONFIDENCE) / 2) * spread
    p = 2 * normal.cdf(-abs(value) / spread) if spread else float(value == 0)
    return Difference(value, value - half, value + half, max(p, _MIN_P))
