"""The IJB-B and IJB-C protocols: templates of many images, verified 1:1 and identified 1:N.

Shapes: N images, V views of an image (1, or 2 with its mirror image), D embedding width, T templates,
P pairs.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.identification import MeanIdentification, search
from facescale.evaluate.metrics import Roc, require_finite, roc, unit_rows

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
CHUNK = 20_000  # pairs scored at once
LEFT = 256  # templates compared with all of the other side at once
DENSE = 30  # the share of all comparisons, as 1 in so many, from which a product of matrices is faster
IMAGES = 8192  # images that are added to their templates at once


@dataclass(frozen=True)
class Templates:
    """Features of sets of images, each set of one person.

    Attributes:
        ids: int64 (T,), ascending template numbers.
        unit_TD: float64 (T, D), rows of length 1 (a template without length stays 0).
    """

    ids: IntArray
    unit_TD: FloatArray

    def rows(self, ids: IntArray) -> IntArray:
        """Row of each template number.

        Raises:
            ValueError: numbers that no image has.
        """
        row = np.searchsorted(self.ids, ids).clip(max=len(self.ids) - 1)
        if missing := np.unique(ids[self.ids[row] != ids]).tolist():
            raise ValueError(
                f"{len(missing)} templates have no image, the first is {missing[0]}; "
                "the list of images and the protocol belong to different sets"
            )
        return row


def build_templates(
    features: FloatArray,
    templates: IntArray,
    medias: IntArray,
    detector_score: FloatArray | None = None,
    keep_norms: bool = True,
) -> Templates:
    """Fuse image features into one feature for each template.

    The views of an image are added; the images of one medium (the frames of a video) in a template are
    averaged; the media of a template are added, not normalised before; the sum is scaled to length 1.

    Args:
        features: (N, V, D) raw embeddings of each view, or (N, D) where there is one.
        templates: int64 (N,), template of each image.
        medias: int64 (N,), medium of each image.
        detector_score: (N,) weight of each image (the last column of the landmark file).
        keep_norms: False scales each image to length 1 first.

    Raises:
        ValueError: columns that differ in length, features that are not finite.
    """
    lengths = {len(features), len(templates), len(medias)}
    if detector_score is not None:
        lengths.add(len(detector_score))
    if len(lengths) != 1 or features.ndim not in (2, 3):
        raise ValueError(
            f"features of shape {features.shape} do not fit {len(templates)} templates, {len(medias)} media "
            "or the detector scores; pass one entry of each per image, features as (N, D) or (N, views, D)"
        )
    order = np.lexsort((medias, templates))
    new_template = np.diff(templates[order], prepend=templates[order[:1]] - 1) != 0
    new_medium = new_template | (np.diff(medias[order], prepend=medias[order[:1]] - 1) != 0)
    template_of = np.cumsum(new_template) - 1
    medium_of = np.cumsum(new_medium) - 1
    # The sum over media of the means over images is a weighted sum of the images.
    weight_N = 1 / np.bincount(medium_of)[medium_of]
    if detector_score is not None:
        weight_N = weight_N * np.asarray(detector_score, np.float64)[order]
    ids = templates[order][new_template].astype(np.int64)
    sums_TD = np.zeros((len(ids), features.shape[-1]))
    for start in range(0, len(order), IMAGES):  # float64 of all images may not fit
        block = slice(start, start + IMAGES)
        x_nD: FloatArray = features[order[block]].astype(np.float64)
        require_finite(x_nD, "features")
        if x_nD.ndim == 3:
            x_nD = x_nD.sum(axis=1)
        if not keep_norms:
            x_nD = unit_rows(x_nD)
        x_nD *= weight_N[block, None]
        starts = np.flatnonzero(np.diff(template_of[block], prepend=-1))
        sums_TD[template_of[block][starts]] += np.add.reduceat(x_nD, starts, axis=0)
    return Templates(ids, unit_rows(sums_TD))


@dataclass(frozen=True)
class IjbVerification:
    """1:1 verification of template pairs.

    Attributes:
        scores: (P,) cosines.
        curve: the ROC.
        tar: TAR at each false-accept rate.
    """

    scores: FloatArray
    curve: Roc
    tar: dict[float, float]


def verify(
    templates: Templates,
    pairs: IntArray,
    is_genuine: BoolArray,
    fars: Sequence[float] = FARS,
    rule: str = "nearest",
    drop_collinear: bool = False,
) -> IjbVerification:
    """Verify pairs of templates.

    Args:
        templates: what `build_templates` gave.
        pairs: int64 (P, 2), template numbers.
        is_genuine: (P,) label of each pair.
        fars: false-accept rates at which TAR is read.
        rule: see `Roc.tar_at`; published figures use "nearest".
        drop_collinear: the released script leaves points out of the curve (see `roc`); the nearest of the
            remaining ones may be further away. True reproduces its figures exactly.

    Raises:
        ValueError: unknown templates, labels that do not fit, an unknown rule.
    """
    scores = scores_of(templates, pairs)
    curve = roc(scores, is_genuine, drop_collinear)
    return IjbVerification(scores, curve, {far: curve.tar_at(far, rule) for far in fars})


def scores_of(templates: Templates, pairs: IntArray) -> FloatArray:
    """Cosines (P,) of pairs (P, 2) of template numbers.

    Raises:
        ValueError: unknown templates.
    """
    a, b = (templates.rows(pairs[:, side]) for side in (0, 1))
    return pair_scores(templates.unit_TD, a, b)


def pair_scores(x_TD: FloatArray, a: IntArray, b: IntArray) -> FloatArray:
    """Dot products (P,) of rows ``a`` and ``b`` of one array.

    A protocol compares most of one set of templates with much of another, so products of blocks of matrices
    are far faster than one product after the other, even though some of their entries are not asked for.
    """
    (left, a_of), (right, b_of) = _compact(a, len(x_TD)), _compact(b, len(x_TD))
    scores = np.empty(len(a))
    if len(a) * DENSE < len(left) * len(right):
        for start in range(0, len(a), CHUNK):
            rows = slice(start, start + CHUNK)
            scores[rows] = np.einsum("pd,pd->p", x_TD[a[rows]], x_TD[b[rows]])
        return scores
    block_of = a_of // LEFT
    order = np.argsort(block_of.astype(np.uint16 if len(left) < LEFT << 16 else np.int64), kind="stable")
    ends = np.cumsum(np.bincount(block_of))
    right_Dr = np.ascontiguousarray(x_TD[right].T)
    for block, (first, end) in enumerate(itertools.pairwise([0, *ends.tolist()])):
        product = x_TD[left[block * LEFT : (block + 1) * LEFT]] @ right_Dr
        pairs = order[first:end]
        scores[pairs] = product[a_of[pairs] - block * LEFT, b_of[pairs]]
    return scores


def _compact(rows: IntArray, num: int) -> tuple[IntArray, IntArray]:
    """The different ``rows`` (below ``num``), ascending, and the place of each row among them."""
    is_used = np.zeros(num, bool)
    is_used[rows] = True
    return np.flatnonzero(is_used), (np.cumsum(is_used) - 1)[rows]


def identify(templates: Templates, galleries: Sequence[IntArray], probes: IntArray) -> MeanIdentification:
    """Search the probe templates in each gallery.

    Args:
        templates: what `build_templates` gave.
        galleries: (rows, 2) int64 each, template and subject numbers; a row may be repeated.
        probes: (rows, 2), the same of the probes.

    Raises:
        ValueError: unknown templates, a gallery without a probe's person.
    """
    probes = np.unique(probes, axis=0)
    probe_QD = templates.unit_TD[templates.rows(probes[:, 0])]
    parts = []
    for listed in galleries:
        gallery = np.unique(listed, axis=0)
        gallery_GD = templates.unit_TD[templates.rows(gallery[:, 0])]
        parts.append(search(gallery_GD, gallery[:, 1], probe_QD, probes[:, 1]))
    return MeanIdentification(parts)
