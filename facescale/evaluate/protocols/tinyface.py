"""TinyFace: closed-set identification of small faces among distractors.

Cheng, Zhu and Gong, "Low-Resolution Face Recognition", ACCV 2018. ``Testing_Set`` has the folders ``Probe``,
``Gallery_Match`` and ``Gallery_Distractor``. In the first two, a file's name begins with its identity and
"_", as in the ``.mat`` lists of the release, which are not needed.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facescale.arrays import FloatArray, IntArray
from facescale.data.readers.pictures import is_picture
from facescale.evaluate.embedding import Extraction
from facescale.evaluate.figures import Figures
from facescale.evaluate.identification import search
from facescale.evaluate.image_evaluator import ImageEvaluator
from facescale.evaluate.protocols.file_images import FileImages
from facescale.evaluate.protocols.subset import first_people, part_note
from facescale.evaluate.template_intervals import rank_intervals

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed

RANKS = (1, 5, 20)
FOLDERS = ("Probe", "Gallery_Match", "Gallery_Distractor")
_NOBODY = -1  # the identity of distractors


@dataclass(frozen=True)
class TinyFaceFiles:
    """The images of TinyFace's test.

    Attributes:
        folder: with the three folders.
        files: paths of the N images below it.
        ids: int64 (N,), identity; -1 for distractors.
        is_probe: (N,).
        remarks: what a reader of the figures should know.
    """

    folder: Path
    files: list[str]
    ids: IntArray
    is_probe: IntArray
    remarks: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> "TinyFaceFiles":
        """The first people, whole, with ``limit`` images at most, and ``limit`` distractors.

        Raises:
            ValueError: the first person has more images than that.
        """
        named, others = np.flatnonzero(self.ids != _NOBODY), np.flatnonzero(self.ids == _NOBODY)
        used = named[first_people(self.ids[named], limit)]
        kept = np.concatenate([used, others[:limit]])
        notes = (
            *part_note(len(used), len(named), "probe and match images", "the first people, whole"),
            *part_note(len(others[:limit]), len(others), "distractors", "the first ones"),
        )
        files = [self.files[index] for index in kept]
        return TinyFaceFiles(self.folder, files, self.ids[kept], self.is_probe[kept], notes)


def read_tinyface(folder: Path) -> TinyFaceFiles:
    """Find the images of ``folder``, or of its ``Testing_Set``.

    Raises:
        ValueError: a folder is missing or empty, or a name does not begin with an identity.
    """
    place = folder / "Testing_Set" if (folder / "Testing_Set").is_dir() else folder
    files: list[str] = []
    ids: list[int] = []
    counts = []
    for part in FOLDERS:
        found = sorted(_below(place / part))
        if not found:
            raise ValueError(
                f"'{place}' has no pictures in {part}; name the folder with {', '.join(FOLDERS)}"
            )
        for file in found:
            number = os.path.basename(file).partition("_")[0]
            if part != FOLDERS[2] and not number.isdecimal():
                raise ValueError(
                    f"'{place / part / file}' does not begin with its identity, as '12_3.jpg' does"
                )
            ids.append(_NOBODY if part == FOLDERS[2] else int(number))
            files.append(f"{part}/{file}")
        counts.append(len(found))
    is_probe = np.repeat([True, False, False], counts)
    return TinyFaceFiles(place, files, np.array(ids, np.int64), is_probe)


def _below(folder: Path) -> Iterator[str]:
    """Paths of the pictures in a folder and in those inside it."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if is_picture(path):
                yield path.relative_to(folder).as_posix()


@dataclass(frozen=True)
class TinyFace(ImageEvaluator):
    """An evaluator: rank 1, 5 and 20 of the probes in matches and distractors.

    Attributes:
        name: of the protocol.
        images: what `read_tinyface` gave.
        size: side of the images that the network takes, in pixels; others are resized.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
    """

    name: str
    images: TinyFaceFiles = field(repr=False)
    size: int = 112
    flip: bool = True
    batch_size: int = 128

    def measure(self, embed: "Embed", extraction: Extraction | None = None) -> Figures:
        """Embed every image once and search the probes.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).
            extraction: where known embeddings are.

        Raises:
            ValueError: an image cannot be read, or no probe's person is in the gallery.
        """
        images = self.images
        embedded = self._embedded(
            embed, FileImages(images.folder, images.files, self.name), range(len(images.files)), extraction
        )
        return self.score(embedded.unit_ND)

    def score(self, unit_ND: FloatArray) -> Figures:
        """Figures from unit features in the order of the files.

        Raises:
            ValueError: no probe's person is in the gallery.
        """
        ids, is_probe = self.images.ids, self.images.is_probe
        found = search(unit_ND[~is_probe], ids[~is_probe], unit_ND[is_probe], ids[is_probe])
        counts = {
            "probes with a mate": len(found.rank_M),
            "probes without one": len(found.other_U),
            "gallery images": int((~is_probe).sum()),
            "distractors": int((ids == _NOBODY).sum()),
        }
        values = {f"rank{k}": found.at_rank(k) for k in RANKS}
        mated = ids[is_probe][np.isin(ids[is_probe], ids[~is_probe])]
        intervals = rank_intervals(found.rank_M, mated, RANKS)
        source = str(self.images.folder)
        return Figures(
            self.name, "tinyface", source, values, counts, self.images.remarks, intervals=intervals
        )
