"""The lists of IJB-B and IJB-C as InsightFace packs them: images, landmarks, templates, pairs, galleries."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.protocols.alignment_check import alignment_note
from facescale.evaluate.protocols.subset import first_people, linked, part_note
from facescale.guard.limits import LIST_BYTES
from facescale.guard.reading import check_file, read_text, reason


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
        used: int64 (N,), place of each image in the lists of the folder.
        num_listed: images there.
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
    remarks: tuple[str, ...]
    used: IntArray
    num_listed: int

    def person_of(self, ids: IntArray) -> IntArray:
        """Number of the person in each template (T,), ascending template numbers.

        Templates of a genuine pair or of one subject show one person.
        """
        subjects = np.concatenate([np.empty((0, 2), np.int64), *self.galleries, self.probes])
        subjects = subjects[np.argsort(subjects[:, 1], kind="stable")]
        same = subjects[1:, 1] == subjects[:-1, 1]
        of_one = np.stack([subjects[:-1, 0][same], subjects[1:, 0][same]], axis=1)
        edges = np.searchsorted(ids, np.concatenate([self.pairs[self.is_genuine], of_one]))
        edges = edges.clip(max=len(ids) - 1)
        return linked(len(ids), edges[:, 0], edges[:, 1])

    def limited(self, limit: int | None) -> "IjbLists":
        """The templates of the first people, whole, with ``limit`` images at most; all without a limit.

        Raises:
            ValueError: no genuine or no impostor pair is left.
        """
        if limit is None or limit >= len(self.files):
            return self
        ids, row_N = np.unique(self.templates, return_inverse=True)
        person_T = self.person_of(ids)
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
            remarks=self.remarks + part_note(len(used), len(self.files), "images", "the first people, whole"),
            used=self.used[used],
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
    if outside := [name for name in files if name.startswith("/") or ".." in name.split("/")]:
        raise ValueError(f"'{found[0]}' names '{outside[0]}', which is outside the folder of the images")
    pairs = _numbers(meta / f"{kind}_template_pair_label.txt", 3)
    galleries = tuple(_people(path) for path in sorted(meta.glob(f"{kind}_1N_gallery_*.csv")))
    probe_file = meta / f"{kind}_1N_probe_mixed.csv"
    landmarks = points[:, :10].reshape(-1, 5, 2)
    return IjbLists(
        folder=folder,
        files=files,
        templates=ids[:, 0].astype(np.int64),
        medias=ids[:, 1].astype(np.int64),
        landmarks=landmarks,
        detector_score=points[:, 10],
        pairs=pairs[:, :2],
        is_genuine=pairs[:, 2] == 1,
        galleries=galleries if probe_file.is_file() else (),
        probes=_people(probe_file) if probe_file.is_file() else np.empty((0, 2), np.int64),
        remarks=alignment_note(landmarks),
        used=np.arange(len(files)),
        num_listed=len(files),
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
        rows = [[int(word) for word in line.split(",")[:2]] for line in lines]
        return np.array(rows, np.int64).reshape(-1, 2)
    except (ValueError, OverflowError):
        raise ValueError(f"'{path}' is not a CSV whose first columns are template and subject") from None
