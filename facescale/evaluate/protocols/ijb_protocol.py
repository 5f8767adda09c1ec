"""IJB-B and IJB-C, 1:1 and 1:N, from images or from features."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from facescale.arrays import FloatArray
from facescale.evaluate import ijb
from facescale.evaluate.embedding import Extraction
from facescale.evaluate.figures import Figures
from facescale.evaluate.histogram import histogram_roc
from facescale.evaluate.identification import pooled_recall, search
from facescale.evaluate.image_evaluator import ImageEvaluator
from facescale.evaluate.influence import kept_influences
from facescale.evaluate.metrics import MIN_FALSE_ACCEPTS
from facescale.evaluate.protocols.aligned import Align, AlignedImages
from facescale.evaluate.protocols.feature_arrays import read_array
from facescale.evaluate.protocols.ijb_lists import IjbLists
from facescale.evaluate.template_intervals import (
    Intervals,
    mean_tpir_intervals,
    rank_intervals,
    tar_certainty,
)

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed

FPIRS = (1e-1, 1e-2)
RANKS = (1, 5, 10)
IMAGES = "loose_crop"
RULES = {
    "insightface": "TAR at the nearest false-accept rate of scikit-learn's curve without collinear points",
    "all_points": "TAR at the nearest false-accept rate of the complete curve",
    "ffc": "TAR interpolated in F2C's histogram of 1,000 bins; 0 where the set is too small",
}
ONE_TO_N = {
    "ijb_evals": "TPIR is rank 1 and above the threshold; strangers are absent subjects; mean of galleries",
    "ijb_1n": "galleries joined; recall above a threshold over all pairs of two people, whatever the rank",
}


@dataclass(frozen=True)
class Setting:
    """How image features become template features, in the letters of InsightFace's eval_ijbc.py.

    Attributes:
        keep_norms: N1: image features keep their norm; N0: each is scaled to length 1.
        detector_score: D1: each is weighted by the detector's score.
        flip: F1: the view of the mirrored image is added.
    """

    keep_norms: bool = True
    detector_score: bool = True
    flip: bool = True

    @classmethod
    def parse(cls, text: str) -> Self:
        """The setting that is written as N1D1F1.

        Raises:
            ValueError: another text.
        """
        found = re.fullmatch("N([01])D([01])F([01])", text)
        if not found:
            raise ValueError(f"setting={text} is not known; write N0 or N1, D0 or D1, F0 or F1, as in N1D1F1")
        return cls(*(digit == "1" for digit in found.groups()))

    def __str__(self) -> str:
        return f"N{int(self.keep_norms)}D{int(self.detector_score)}F{int(self.flip)}"


@dataclass(frozen=True)
class Ijb(ImageEvaluator):
    """An evaluator: 1:1 verification of template pairs and 1:N identification.

    Attributes:
        name: of the protocol.
        lists: what ``read_ijb`` gave.
        align: brings five landmarks to the template: (photo, landmarks, size) -> face.
        size: side of the images that the network takes, in pixels.
        flip: add the embedding of the mirrored image, unless the setting says F0.
        batch_size: images in one forward pass.
        setting: how image features become template features.
        rule: how TAR is read, a key of `RULES`.
        one_to_n: how identification is counted, a key of `ONE_TO_N`.
        features: file of image features in the order of the lists, in place of images; see `read_array`.
    """

    name: str
    lists: IjbLists = field(repr=False)
    align: Align
    size: int = 112
    flip: bool = True
    batch_size: int = 128
    setting: Setting = field(default_factory=Setting)
    rule: str = "insightface"
    one_to_n: str = "ijb_evals"
    features: Path | None = None

    def measure(self, embed: "Embed", extraction: Extraction | None = None) -> Figures:
        """Align and embed every image (or read features), fuse templates, score pairs, search galleries.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).
            extraction: where known embeddings are.

        Raises:
            ValueError: an image cannot be read or aligned; lists or features that do not fit.
        """
        lists = self.lists
        if self.features is not None:
            return self.score(read_array(self.features, lists.num_listed, lists.used))
        images = AlignedImages(lists.folder / IMAGES, lists.files, lists.landmarks, self.align, self.size)
        both = self.flip and self.setting.flip
        embedded = self._embedded(embed, images, range(len(lists.files)), extraction, flip=both)
        return self.score(embedded.unit_ND * embedded.sum_norm_N[:, None])

    def score(self, features: FloatArray) -> Figures:
        """Figures from raw image features in the order of the lists.

        Args:
            features: (N, D), norm kept, views added if so set; or (N, 2, D), a view each.

        Raises:
            ValueError: lists or features that do not fit.
        """
        lists, setting = self.lists, self.setting
        if features.ndim == 3 and not setting.flip:
            features = features[:, 0]
        scores = lists.detector_score if setting.detector_score else None
        templates = ijb.build_templates(features, lists.templates, lists.medias, scores, setting.keep_norms)
        impostors = int((~lists.is_genuine).sum())
        remarks = [*lists.remarks, f"setting {setting}, rule {self.rule}: {RULES[self.rule]}"]
        values, intervals, drawn = self._tar(templates)
        for far in sorted(ijb.FARS, reverse=True):
            if far * impostors < MIN_FALSE_ACCEPTS:
                remarks.append(f"FAR {far:g} is {far * impostors:.2g} of {impostors:,} impostor pairs")
        if lists.galleries:
            found, ends = self._identified(templates, remarks)
            values, intervals = values | found, intervals | ends
        counts = {
            "images": len(lists.files),
            "templates": len(templates.ids),
            "genuine pairs": len(lists.pairs) - impostors,
            "impostor pairs": impostors,
            "probes": len(np.unique(lists.probes, axis=0)),
        }
        rule = f"{setting}, {self.rule}, {self.one_to_n}"
        source = str(lists.folder)
        return Figures(self.name, "ijb", source, values, counts, tuple(remarks), drawn, intervals, rule)

    def _tar(self, templates: ijb.Templates) -> tuple[dict[str, float], Intervals, dict[str, Any]]:
        lists = self.lists
        fars = sorted(ijb.FARS, reverse=True)
        if self.rule == "ffc":
            curve = histogram_roc(ijb.scores_of(templates, lists.pairs), lists.is_genuine)
            return {f"tar@far={far:g}": curve.tar_at(far)[0] for far in fars}, {}, {}
        drop = self.rule == "insightface"
        verified = ijb.verify(templates, lists.pairs, lists.is_genuine, fars, drop_collinear=drop)
        roc = verified.curve
        thresholds = {
            far: float(roc.thresholds[np.searchsorted(roc.tar, tar)]) for far, tar in verified.tar.items()
        }
        _, person_T = np.unique(lists.person_of(templates.ids), return_inverse=True)
        person_2P = person_T[np.stack([templates.rows(side) for side in lists.pairs.T])]
        intervals, moved = tar_certainty(verified.scores, lists.is_genuine, person_2P, thresholds)
        drawn = kept_influences(moved, person_T, lists.pairs, lists.is_genuine.astype(np.int64))
        return {f"tar@far={far:g}": tar for far, tar in verified.tar.items()}, intervals, drawn

    def _identified(self, templates: ijb.Templates, remarks: list[str]) -> tuple[dict[str, float], Intervals]:
        lists = self.lists
        remarks.append(f"1:N by {self.one_to_n}: {ONE_TO_N[self.one_to_n]}")
        if self.one_to_n == "ijb_1n":
            both = np.unique(np.concatenate(lists.galleries), axis=0)
            probes = np.unique(lists.probes, axis=0)
            sides = [(templates.unit_TD[templates.rows(rows[:, 0])], rows[:, 1]) for rows in (both, probes)]
            joined = search(*sides[0], *sides[1])
            values = {f"rank{k}": joined.at_rank(k) for k in RANKS}
            mated = probes[np.isin(probes[:, 1], both[:, 1]), 1]
            intervals = rank_intervals(joined.rank_M, mated, RANKS)
            recall = {rate: pooled_recall(*sides[0], *sides[1], rate)[0] for rate in FPIRS}
            return values | {
                f"recall@pooled_fpir={rate:g}": value for rate, value in recall.items()
            }, intervals
        found = ijb.identify(templates, lists.galleries, lists.probes)
        values = {f"rank{k}": found.at_rank(k) for k in RANKS}
        subjects = np.unique(lists.probes, axis=0)[:, 1]
        people = [gallery[:, 1] for gallery in lists.galleries]
        mated = np.concatenate([subjects[np.isin(subjects, known)] for known in people])
        intervals = rank_intervals(np.concatenate([part.rank_M for part in found.parts]), mated, RANKS)
        strangers = min(len(part.other_U) for part in found.parts)
        if not strangers:
            remarks.append("no TPIR: each probe's subject is in each gallery")
            return values, intervals
        for fpir in FPIRS:
            if strangers * fpir >= MIN_FALSE_ACCEPTS:
                intervals |= mean_tpir_intervals(found.parts, people, subjects, fpir)
        return values | {f"tpir@fpir={fpir:g}": found.tpir_at(fpir) for fpir in FPIRS}, intervals
