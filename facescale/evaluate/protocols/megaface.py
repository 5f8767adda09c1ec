"""MegaFace challenge 1: FaceScrub probes among a million distractors, from images or from feature files.

The layout is InsightFace's: ``facescrub_lst`` and ``megaface_lst`` name the images below ``facescrub_images``
and ``megaface_images``; ``facescrub_noises.txt`` and ``megaface_noises.txt`` name wrong labels.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.distractors import search_distractors
from facescale.evaluate.embedding import Extraction
from facescale.evaluate.figures import Figures
from facescale.evaluate.identification import search_histogram
from facescale.evaluate.image_evaluator import ImageEvaluator
from facescale.evaluate.protocols.devkit import (
    ends_in,
    read_features,
    read_list,
    read_noises,
    write_feature,
)
from facescale.evaluate.protocols.file_images import FileImages
from facescale.evaluate.protocols.subset import first_people, part_note
from facescale.evaluate.rows import unit_rows
from facescale.evaluate.shares import is_main
from facescale.evaluate.template_intervals import distractor_intervals

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed

MEGAFACE_RULES = ("devkit", "ffc")
NOISES = ("centre", "remove")
FARS = (1e-3, 1e-4, 1e-5, 1e-6)
HISTOGRAM_FARS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)
SUFFIX = "_facescale.bin"


@dataclass(frozen=True)
class MegaFaceLists:
    """What the lists say.

    Attributes:
        folder: where they are.
        probes: paths of the Q probes below ``facescrub_images``.
        people: int64 (Q,), identity of each probe, which is its folder.
        noisy: (Q,), whether the label of a probe is wrong.
        distractors: paths of the distractors below ``megaface_images``.
        remarks: what a reader of the figures should know of the lists.
    """

    folder: Path
    probes: list[str]
    people: IntArray
    noisy: BoolArray
    distractors: list[str]
    remarks: tuple[str, ...]

    def limited(self, limit: int | None) -> "MegaFaceLists":
        """The first people, whole, with ``limit`` probes at most, and ``limit`` distractors.

        Raises:
            ValueError: the first person has more probes than that.
        """
        used = first_people(self.people, limit)
        distractors = self.distractors[:limit]
        notes = (
            *part_note(len(used), len(self.probes), "probes", "the first people, whole"),
            *part_note(len(distractors), len(self.distractors), "distractors", "the first ones"),
        )
        probes = [self.probes[index] for index in used]
        return MegaFaceLists(
            self.folder, probes, self.people[used], self.noisy[used], distractors, self.remarks + notes
        )


def read_megaface(folder: Path) -> MegaFaceLists:
    """Read the lists of ``folder``, or of ``folder/data``; the devkit's own JSON lists are taken too.

    Distractors with a wrong label (a person of FaceScrub) are left out.

    Raises:
        ValueError: a list is missing or damaged.
    """
    place = folder / "data" if (folder / "data").is_dir() else folder
    probes = read_list(_first(place, "facescrub_lst", "facescrub_features_list.json"))
    distractors = read_list(_first(place, "megaface_lst", "megaface_features_list.json_*"))
    people = [name.split("/")[-2] if "/" in name else "" for name in probes]
    if "" in people:
        raise ValueError(f"'{probes[people.index('')]}' of the probes is in no folder; it needs PERSON/IMAGE")
    noisy, remarks = np.zeros(len(probes), bool), []
    if (place / "facescrub_noises.txt").is_file():
        noisy = np.array(ends_in(probes, read_noises(place / "facescrub_noises.txt"), 1))
        remarks.append(f"{int(noisy.sum()):,} of {len(probes):,} probes have wrong labels (facescrub_noises)")
    if (place / "megaface_noises.txt").is_file():
        wrong = ends_in(distractors, read_noises(place / "megaface_noises.txt"), 3)
        kept = [name for name, is_wrong in zip(distractors, wrong, strict=True) if not is_wrong]
        remarks.append(
            f"{len(distractors) - len(kept):,} of {len(distractors):,} distractors are left out (noises)"
        )
        distractors = kept
    number = np.unique(people, return_inverse=True)[1].astype(np.int64)
    return MegaFaceLists(place, probes, number, noisy, distractors, tuple(remarks))


def _first(folder: Path, *patterns: str) -> Path:
    found = [path for pattern in patterns for path in sorted(folder.glob(pattern), key=_size)]
    if not found:
        raise ValueError(
            f"'{folder}' has no list {' or '.join(patterns)}; name the folder that holds the lists"
        )
    return found[-1] if "*" in patterns[-1] and found[0].name != patterns[0] else found[0]


def _size(path: Path) -> int:
    """Number of distractors that the name of a devkit list states: ``..._1000000_1``."""
    return max((int(word) for word in path.name.split("_") if word.isdecimal()), default=0)


@dataclass(frozen=True)
class MegaFace(ImageEvaluator):
    """An evaluator: rank 1, CMC and TAR of probes among distractors.

    Attributes:
        name: of the protocol.
        lists: what `read_megaface` gave.
        size: side of the images that the network takes, in pixels; others are resized.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
        rule: "devkit" counts every pair; "ffc" is F2C's histogram of 10,000 bins, probes in the gallery.
        noise: what a probe with a wrong label becomes: the "centre" of its person, as InsightFace does it
            (without the random number added there), or "remove".
        features: folder with ``facescrub/`` and ``megaface/`` of feature files, in place of images.
        write: folder to which the features are written in that form.
    """

    name: str
    lists: MegaFaceLists = field(repr=False)
    size: int = 112
    flip: bool = True
    batch_size: int = 128
    rule: str = MEGAFACE_RULES[0]
    noise: str = NOISES[0]
    features: Path | None = None
    write: Path | None = None

    def measure(self, embed: "Embed", extraction: Extraction | None = None) -> Figures:
        """Embed every image once (or read the features) and search.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).
            extraction: where known embeddings are.

        Raises:
            ValueError: an image or a feature file cannot be read, or no person has two probes.
        """
        lists = self.lists
        parts = []
        for part, names in (("facescrub", lists.probes), ("megaface", lists.distractors)):
            if self.features is not None:
                parts.append(unit_rows(read_features(self.features / part, names)).astype(np.float32))
                continue
            root = lists.folder / f"{part}_images"
            images = FileImages(root if root.is_dir() else lists.folder, names, self.name)
            embedded = self._embedded(embed, images, range(len(names)), extraction)
            parts.append(embedded.unit_ND)
            if self.write is not None and is_main(extraction.dist if extraction else None):
                for name, feature in zip(names, embedded.unit_ND, strict=True):
                    write_feature(self.write / part / f"{name}{SUFFIX}", feature)
        return self.score(*parts)

    def score(self, probe_QD: FloatArray, distractor_GD: FloatArray) -> Figures:
        """Figures from unit features in the order of the lists.

        Raises:
            ValueError: no person has two probes.
        """
        probe_QD, people = self._cleaned(probe_QD)
        ranks = search_distractors(probe_QD, people, distractor_GD, FARS if self.rule == "devkit" else ())
        values = {"rank1": ranks.at_rank(1)}
        numbers = np.unique(people, return_inverse=True)[1]
        intervals = distractor_intervals(ranks, numbers, (1,) if self.rule == "ffc" else (1, 10, 100))
        remarks = list(self.lists.remarks)
        if self.rule == "ffc":
            curve = search_histogram(
                np.concatenate([probe_QD, distractor_GD]),
                np.concatenate([people, np.full(len(distractor_GD), people.max() + 1)]),
                probe_QD,
                people,
                self_matches=len(probe_QD),
            )
            values |= {f"tar@far={far:g}": curve.tar_at(far)[0] for far in HISTOGRAM_FARS}
            remarks.append("rule ffc: TAR from F2C's histogram; a rate that the set is too small for is 0")
        else:
            values |= {f"rank{k}": ranks.at_rank(k) for k in (10, 100)}
            values |= {f"tar@far={far:g}": tar for far, tar in ranks.tar.items()}
            values |= {f"threshold@far={far:g}": threshold for far, threshold in ranks.thresholds.items()}
            remarks += [
                f"FAR {far:g}: {ranks.num_impostor:,} impostor pairs are too few for it"
                for far in ranks.unsupported
            ]
        counts = {
            "probes": len(probe_QD),
            "people": len(np.unique(people)),
            "distractors": len(distractor_GD),
            "genuine pairs": len(ranks.rank_P),
            "impostor pairs": ranks.num_impostor,
        }
        source, rule = str(self.lists.folder), f"{self.rule}, noise {self.noise}"
        return Figures(
            self.name, "megaface", source, values, counts, tuple(remarks), intervals=intervals, rule=rule
        )

    def _cleaned(self, probe_QD: FloatArray) -> tuple[FloatArray, IntArray]:
        """Probes and their people, with wrong labels dealt with as ``noise`` says."""
        people, noisy = self.lists.people, self.lists.noisy
        if not noisy.any():
            return probe_QD, people
        num_people = int(people.max()) + 1
        centre = np.zeros((num_people, probe_QD.shape[1]))
        np.add.at(centre, people[~noisy], probe_QD[~noisy])
        kept: BoolArray = ~noisy
        if self.noise == "centre":
            probe_QD = np.where(noisy[:, None], unit_rows(centre)[people], probe_QD).astype(np.float32)
            kept |= np.linalg.norm(centre, axis=1)[people] > 0
        return probe_QD[kept], people[kept]
