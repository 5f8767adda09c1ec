"""Images under the label of someone else.

The margin of an image is its cosine to the nearest other identity minus that to its own: high for a wrong
label. N images, C identities.
"""

from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.clean.centres import Centres, Floats
from facescale.clean.search import nearest
from facescale.clean.threshold import Threshold, threshold_for

MIN_IMAGES = 3  # of an identity of two, nothing tells which one is wrong


@dataclass(frozen=True)
class Labels:
    """What was found about each label.

    Attributes:
        margin_N: cosine to the nearest other identity minus that to the own one; -inf where the identity
            has too few images.
        own_N: cosine to the centre of the own identity, without the image.
        other_N: cosine to the nearest other identity.
        nearest_N: that identity.
        sure_N: whether the nearest identity stands out enough to be the right label.
        threshold: margins from it on are errors.
    """

    margin_N: FloatArray
    own_N: FloatArray
    other_N: FloatArray
    nearest_N: IntArray
    sure_N: BoolArray
    threshold: Threshold

    @property
    def wrong(self) -> IntArray:
        """Images whose label is taken for wrong, the clearest first."""
        return self.threshold.reached(self.margin_N)


def check_labels(
    unit_ND: Floats,
    ids: IntArray,
    centres: Centres,
    precision: float,
    *,
    apart_N: BoolArray,
    partner_C: IntArray,
    margin: float | None = None,
) -> Labels:
    """Compare every image with all identities: time N times C, memory one block of cosines.

    For the threshold, every image is given the label of a random other identity.

    Args:
        unit_ND: unit rows.
        ids: (N,), 0 to C - 1.
        centres: of the identities.
        precision: expected fraction of errors among what is found.
        apart_N: images that belong to another finding; they are no errors here.
        partner_C: identity that is the same person; the identity itself where none is known.
        margin: the threshold, if it is set by hand.
    """
    num_ids = len(centres.unit_CD)
    top_N2, place_N2 = _others(unit_ND, ids, centres, partner_C)
    counts = np.bincount(ids, minlength=num_ids)
    judged_N = (counts[ids] >= MIN_IMAGES) & ~apart_N & (num_ids > 1)
    margin_N = np.where(judged_N, top_N2[:, 0] - centres.own_N, -np.inf)
    planted_N = _margin_under_another_label(unit_ND, ids, centres, top_N2, place_N2)
    threshold = threshold_for(margin_N[judged_N], planted_N[judged_N], precision, margin)
    gap_N = top_N2[:, 0] - top_N2[:, 1]
    sure = _gap_of_the_right(top_N2, centres.own_N, judged_N & (margin_N < threshold.score), precision)
    return Labels(
        margin_N, centres.own_N, top_N2[:, 0].astype(float), place_N2[:, 0], gap_N >= sure, threshold
    )


def _others(unit_ND: Floats, ids: IntArray, centres: Centres, partner_C: IntArray) -> tuple[Floats, IntArray]:
    """Cosines of each image to the two nearest people other than its own, (N, 2), and who they are."""
    top_N3, place_N3 = nearest(unit_ND, centres.unit_CD, 3, ids)
    is_own_N3 = place_N3 == partner_C[ids][:, None]
    order_N2 = np.argsort(is_own_N3, axis=1, kind="stable")[:, :2]
    return np.take_along_axis(top_N3, order_N2, 1), np.take_along_axis(place_N3, order_N2, 1)


def _margin_under_another_label(
    unit_ND: Floats, ids: IntArray, centres: Centres, top_N2: Floats, place_N2: IntArray
) -> FloatArray:
    num_ids = len(centres.unit_CD)
    draw = np.random.default_rng(0)
    label_N = (ids + draw.integers(1, max(num_ids, 2), len(ids))) % num_ids
    own_N = np.empty(len(ids))
    for start in range(0, len(ids), 1 << 16):
        part = slice(start, start + (1 << 16))
        own_N[part] = (unit_ND[part] * centres.unit_CD[label_N[part]]).sum(axis=1)
    other_N = np.where(place_N2[:, 0] == label_N, top_N2[:, 1], top_N2[:, 0])
    planted: FloatArray = np.maximum(other_N, centres.own_N) - own_N
    return planted


def _gap_of_the_right(top_N2: Floats, own_N: FloatArray, right_N: BoolArray, precision: float) -> float:
    """The least lead of the nearest identity with which it is right in ``precision`` of the right images."""
    own, best, second = own_N[right_N], top_N2[right_N, 0], top_N2[right_N, 1]
    if not len(own):
        return np.inf
    is_own = own >= best
    gap = np.where(is_own, own - best, best - np.maximum(own, second))
    order = np.argsort(-gap, kind="stable")
    good = np.flatnonzero(np.cumsum(is_own[order]) >= precision * np.arange(1, len(order) + 1))
    return float(gap[order][good[-1]]) if len(good) else np.inf
