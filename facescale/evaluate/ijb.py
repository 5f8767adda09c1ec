"""The IJB-B and IJB-C protocols: templates of many images, verified 1:1 and identified 1:N.

Shapes: N images, V views of an image (1, or 2 with its mirror image), D embedding width, T templates,
P pairs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.identification import MeanIdentification, search
from facescale.evaluate.metrics import Roc, require_finite, roc, unit_rows

FARS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
CHUNK = 20_000  # pairs scored at once


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
    require_finite(features, "features")
    x_ND: FloatArray = features.astype(np.float64)
    if x_ND.ndim == 3:
        x_ND = x_ND.sum(axis=1)
    if not keep_norms:
        x_ND = unit_rows(x_ND)
    if detector_score is not None:
        x_ND = x_ND * np.asarray(detector_score, dtype=np.float64)[:, None]
    groups, group_N, sizes = np.unique(
        np.stack([templates, medias], axis=1), axis=0, return_inverse=True, return_counts=True
    )
    by_medium = _group_sums(x_ND, group_N.reshape(-1)) / sizes[:, None]
    ids, template_of_medium = np.unique(groups[:, 0], return_inverse=True)
    return Templates(ids.astype(np.int64), unit_rows(_group_sums(by_medium, template_of_medium)))


def _group_sums(x_ND: FloatArray, group_N: IntArray) -> FloatArray:
    """Sum of the rows of each group; groups are numbered 0, 1, ... and none is empty."""
    order = np.argsort(group_N, kind="stable")
    starts = np.flatnonzero(np.diff(group_N[order], prepend=-1))
    sums: FloatArray = np.add.reduceat(x_ND[order], starts, axis=0)
    return sums


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
    a, b = (templates.rows(pairs[:, side]) for side in (0, 1))
    x_TD = templates.unit_TD
    scores = np.concatenate(
        [
            np.einsum("pd,pd->p", x_TD[a[start : start + CHUNK]], x_TD[b[start : start + CHUNK]])
            for start in range(0, len(a), CHUNK)
        ]
    )
    curve = roc(scores, is_genuine, drop_collinear)
    return IjbVerification(scores, curve, {far: curve.tar_at(far, rule) for far in fars})


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
