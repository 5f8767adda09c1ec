"""IJB-B and IJB-C as InsightFace packs them: lists, landmarks and loosely cropped images in one folder."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate import ijb
from facescale.evaluate.embedding import Extraction, embed_set
from facescale.evaluate.figures import Figures
from facescale.evaluate.metrics import MIN_FALSE_ACCEPTS
from facescale.evaluate.protocols.aligned import Align, AlignedImages
from facescale.evaluate.protocols.subset import first_people, linked, part_note
from facescale.guard.limits import LIST_BYTES
from facescale.guard.reading import check_file, read_text, reason

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed

FPIRS = (1e-1, 1e-2)
IMAGES = "loose_crop"


@dataclass(frozen=True)
class IjbLists:
    """What the lists of one protocol say.

    Attributes:
        folder: where they are.
        files: name of each of the N images.
        templates: int64 (N,), template of each image.
        medias: int64 (N,), medium (still or video) of each.
        landmarks: (N, 5, 2), pixels in the loosely cropped image.
        detector_score: (N,).
        pairs: int64 (P, 2), templates to compare.
        is_genuine: (P,).
        galleries: (rows, 2) each, template and subject.
        probes: (rows, 2), the same.
        remarks: what a reader of the figures should know of the lists.
    """

    folder: Path
    files: list[str]
    templates: IntArray
    medias: IntArray
    landmarks: FloatArray
    detector_score: FloatArray
    pairs: IntArray
    is_genuine: BoolArray
    galleries: tuple[IntArray, ...]
    probes: IntArray
    remarks: tuple[str, ...] = ()

    def limited(self, limit: int | None) -> "IjbLists":
        """The templates of the first people, whole, with ``limit`` images at most; all without a limit.

        Templates of a genuine pair or of one subject show one person.

        Raises:
            ValueError: no genuine or no impostor pair is left.
        """
        if limit is None or limit >= len(self.files):
            return self
        ids, row_N = np.unique(self.templates, return_inverse=True)
        subjects = np.concatenate([np.empty((0, 2), np.int64), *self.galleries, self.probes])
        subjects = subjects[np.argsort(subjects[:, 1], kind="stable")]
        same = subjects[1:, 1] == subjects[:-1, 1]
        of_one = np.stack([subjects[:-1, 0][same], subjects[1:, 0][same]], axis=1)
        edges = np.searchsorted(ids, np.concatenate([self.pairs[self.is_genuine], of_one]))
        edges = edges.clip(max=len(ids) - 1)
        person_T = linked(len(ids), edges[:, 0], edges[:, 1])
        used = first_people(person_T[row_N], limit)
        kept = np.unique(self.templates[used])
        among = np.isin(self.pairs, kept).all(axis=1)
        if len(np.unique(self.is_genuine[among])) < 2:
            raise ValueError(
                f"a limit of {limit} images leaves no genuine or no impostor pair of '{self.folder}'; "
                "use a larger one"
            )
        return replace(
            self,
            files=[self.files[index] for index in used],
            templates=self.templates[used],
            medias=self.medias[used],
            landmarks=self.landmarks[used],
            detector_score=self.detector_score[used],
            pairs=self.pairs[among],
            is_genuine=self.is_genuine[among],
            galleries=tuple(rows[np.isin(rows[:, 0], kept)] for rows in self.galleries),
            probes=self.probes[np.isin(self.probes[:, 0], kept)],
            remarks=part_note(len(used), len(self.files), "images", "the first people, whole"),
        )


def read_ijb(folder: Path) -> IjbLists:
    """Read the lists of ``FOLDER/meta``.

    These are ``ijbc_face_tid_mid.txt``, ``ijbc_template_pair_label.txt``, ``ijbc_name_5pts_score.txt``, and
    where they are there ``ijbc_1N_gallery_*.csv`` and ``ijbc_1N_probe_mixed.csv``; the same with ``ijbb``.

    Raises:
        ValueError: a list is missing or damaged, or two of them do not fit.
    """
    meta = folder / "meta"
    found = sorted(meta.glob("ijb?_face_tid_mid.txt"))
    if len(found) != 1:
        raise ValueError(
            f"'{meta}' has {len(found)} lists ijbb_face_tid_mid.txt or ijbc_face_tid_mid.txt; name the "
            "folder of IJB-B or IJB-C that holds meta/ and loose_crop/"
        )
    kind = found[0].name[:4]
    files, ids = _named_numbers(found[0], 2)
    names, points = _named_numbers(meta / f"{kind}_name_5pts_score.txt", 11)
    if names != files:
        raise ValueError(
            f"{kind}_face_tid_mid.txt and {kind}_name_5pts_score.txt of '{meta}' do not name the same images"
        )
    pairs = _numbers(meta / f"{kind}_template_pair_label.txt", 3)
    galleries = tuple(_people(path) for path in sorted(meta.glob(f"{kind}_1N_gallery_*.csv")))
    probe_file = meta / f"{kind}_1N_probe_mixed.csv"
    return IjbLists(
        folder=folder,
        files=files,
        templates=ids[:, 0].astype(np.int64),
        medias=ids[:, 1].astype(np.int64),
        landmarks=points[:, :10].reshape(-1, 5, 2),
        detector_score=points[:, 10],
        pairs=pairs[:, :2],
        is_genuine=pairs[:, 2] == 1,
        galleries=galleries if probe_file.is_file() else (),
        probes=_people(probe_file) if probe_file.is_file() else np.empty((0, 2), np.int64),
    )


def _numbers(path: Path, columns: int) -> IntArray:
    """Whole numbers, (rows, columns); 15 million rows in seconds, without a Python object for each."""
    check_file(path, "the list", LIST_BYTES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of a text that is not read to its end
        try:
            return np.fromfile(path, np.int64, sep=" ").reshape(-1, columns)
        except OSError as error:
            raise ValueError(f"cannot read the list '{path}': {reason(error)}; check the file") from None
        except (ValueError, DeprecationWarning):
            raise ValueError(f"'{path}' is not a list of {columns} whole numbers a line") from None


def _lines(path: Path) -> list[str]:
    return read_text(path, "the list", LIST_BYTES).splitlines()


def _named_numbers(path: Path, columns: int) -> tuple[list[str], FloatArray]:
    """Image names and (rows, columns) numbers of lines "NAME NUMBER ..."."""
    parts = [line.partition(" ") for line in _lines(path) if line.strip()]
    try:
        numbers = np.loadtxt([rest for _, _, rest in parts], np.float64, ndmin=2, comments=None)
        return [name for name, _, _ in parts], numbers.reshape(len(parts), columns)
    except ValueError:
        raise ValueError(f"'{path}' is not a list of a name and {columns} numbers a line") from None


def _people(path: Path) -> IntArray:
    """Template and subject of each line of a CSV with a header."""
    lines = [line for line in _lines(path)[1:] if line.strip()]
    try:
        return np.array([line.split(",")[:2] for line in lines]).astype(np.int64).reshape(-1, 2)
    except (ValueError, OverflowError):
        raise ValueError(f"'{path}' is not a CSV whose first columns are template and subject") from None


@dataclass(frozen=True)
class Ijb:
    """An evaluator: 1:1 verification of template pairs and 1:N identification.

    Image features are the sum of both views with their norm kept, weighted by the detector's score: the
    setting N1 D1 F1 of InsightFace's eval_ijbc.py. TAR is read at the nearest false-accept rate, as there.

    Attributes:
        name: of the protocol.
        lists: what ``read_ijb`` gave.
        align: brings five landmarks to the template: (photo, landmarks, size) -> face.
        size: side of the images that the network takes, in pixels.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
    """

    name: str
    lists: IjbLists = field(repr=False)
    align: Align
    size: int = 112
    flip: bool = True
    batch_size: int = 128

    def run(self, embed: "Embed") -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every scalar; see ``measure``."""
        return self.measure(embed).figures()

    def measure(self, embed: "Embed", extraction: Extraction | None = None) -> Figures:
        """Align and embed every image, fuse templates, score pairs, search galleries.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).
            extraction: where known embeddings are.

        Raises:
            ValueError: an image cannot be read or aligned; lists that do not fit.
        """
        lists = self.lists
        embedded = embed_set(
            embed,
            AlignedImages(lists.folder / IMAGES, lists.files, lists.landmarks, self.align, self.size),
            range(len(lists.files)),
            size=self.size,
            flip=self.flip,
            batch_size=self.batch_size,
            extraction=extraction,
        )
        return self.score(embedded.unit_ND * embedded.sum_norm_N[:, None])

    def score(self, features_ND: FloatArray) -> Figures:
        """Figures from image features (N, D), both views added, norm kept, in the order of the lists."""
        lists = self.lists
        templates = ijb.build_templates(features_ND, lists.templates, lists.medias, lists.detector_score)
        verified = ijb.verify(templates, lists.pairs, lists.is_genuine, drop_collinear=True)
        impostors = int((~lists.is_genuine).sum())
        values: dict[str, float] = {}
        notes = list(lists.remarks)
        for far, tar in sorted(verified.tar.items(), reverse=True):
            values[f"tar@far={far:g}"] = tar
            if far * impostors < MIN_FALSE_ACCEPTS:
                notes.append(f"FAR {far:g} is {far * impostors:.2g} of {impostors:,} impostor pairs")
        if lists.galleries:
            found = ijb.identify(templates, lists.galleries, lists.probes)
            values |= {f"rank{k}": found.at_rank(k) for k in (1, 5, 10)}
            values |= {f"tpir@fpir={fpir:g}": found.tpir_at(fpir) for fpir in FPIRS}
        counts = {
            "images": len(lists.files),
            "templates": len(templates.ids),
            "genuine pairs": len(lists.pairs) - impostors,
            "impostor pairs": impostors,
            "probes": len(np.unique(lists.probes, axis=0)),
        }
        return Figures(self.name, "ijb", str(lists.folder), values, counts, tuple(notes))
