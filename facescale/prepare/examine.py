"""Examine one photo: open it, find its face, align and measure it. Runs in worker processes."""

import hashlib
import io
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from facescale.arrays import Pixels
from facescale.data.loading.decode import encode_jpeg
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.folder import read_file
from facescale.guard.limits import PHOTO_PIXELS
from facescale.guard.reading import reason
from facescale.prepare.align import SIZE, align
from facescale.prepare.detect import (
    FACE_RULES,
    MIN_SCORE,
    Detector,
    Face,
    build_detector,
    choose_face,
)
from facescale.prepare.landmarks import read_landmarks
from facescale.prepare.photos import PhotoError, open_photo
from facescale.prepare.quality import DISTORTED, Quality, measure
from facescale.prepare.search import find_faces
from facescale.registry import lookup

UNREADABLE, NO_FACE, NO_LANDMARKS = "unreadable file", "no face found", "not in the landmark file"
_THUMBNAIL = 96  # pixels of the longer side


@dataclass(frozen=True)
class Settings:
    """How photos are examined; what changes these changes every crop.

    Attributes:
        detector: key of `facescale.prepare.detect.DETECTORS`; empty with ``landmarks``.
        landmarks: file of landmarks of the upright photos, by path below the root, in place of a detector.
        min_score: what a detector must be sure of to report a face.
        face: which of several faces, key of `facescale.prepare.detect.FACE_RULES`.
        size: side of the crops, pixels.
        max_pixels: larger photos are not decoded.

    Raises:
        ValueError: a value out of its range, or an unknown rule.
    """

    detector: str = "yuface"
    landmarks: str | None = None
    min_score: float = MIN_SCORE
    face: str = "largest"
    size: int = SIZE
    max_pixels: int = PHOTO_PIXELS

    def __post_init__(self) -> None:
        lookup("face rule", FACE_RULES, self.face)
        if self.size < 16:
            raise ValueError(f"size = {self.size} must be at least 16 pixels")
        if not 0 < self.min_score < 1:
            raise ValueError(f"min_score = {self.min_score} must lie between 0 and 1")


@dataclass(frozen=True)
class Finding:
    """What is known of one file.

    Attributes:
        key: path below the root.
        num_bytes: size of the file.
        mtime_ns: when it was changed.
        digest: of its bytes; empty if it could not be read.
        problem: why there is no crop; empty if there is one.
        detail: what the decoder said.
        notes: what was done to open it.
        num_faces: faces found.
        quality: of the crop.
    """

    key: str
    num_bytes: int
    mtime_ns: int
    digest: str = ""
    problem: str = ""
    detail: str = ""
    notes: tuple[str, ...] = ()
    num_faces: int = 0
    quality: Quality | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Finding":
        """What `to_dict` gave.

        Raises:
            TypeError: values of something else.
        """
        quality = Quality(**values["quality"]) if values["quality"] else None
        return cls(**{**values, "notes": tuple(values["notes"]), "quality": quality})


class FaceSource(Protocol):
    """Gives the faces of a photo: a detector, or a file of landmarks."""

    def __call__(self, key: str, photo_HW3: Pixels) -> list[Face]:
        """Faces of the photo ``key``.

        Raises:
            KeyError: the source does not know this photo.
        """
        ...


class DetectedFaces:
    """Faces that a detector finds."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector

    def __call__(self, key: str, photo_HW3: Pixels) -> list[Face]:
        """The faces."""
        return find_faces(self._detector, photo_HW3)


class ListedFaces:
    """One face per photo, from a file of landmarks."""

    def __init__(self, path: Path) -> None:
        self._listed = read_landmarks(path)

    def __call__(self, key: str, photo_HW3: Pixels) -> list[Face]:
        """The face."""
        landmarks_52, score = self._listed[key]
        low, high = landmarks_52.min(axis=0), landmarks_52.max(axis=0)
        return [Face((float(low[0]), float(low[1]), float(high[0]), float(high[1])), landmarks_52, score)]


def open_face_source(settings: Settings) -> FaceSource:
    """What the settings name.

    Raises:
        ValueError: a detector that is not installed, a file of landmarks that cannot be read.
    """
    if settings.landmarks is not None:
        return ListedFaces(Path(settings.landmarks))
    return DetectedFaces(build_detector(settings.detector, settings.min_score))


def examine(root: Path, key: str, settings: Settings, faces: FaceSource) -> tuple[Finding, bytes]:
    """Examine the file ``key`` below ``root``.

    Returns:
        What was found, and a JPEG: the aligned crop, or a thumbnail of a photo that has none (nothing for a
        file that cannot be opened).
    """
    path = root / key
    try:
        status = os.stat(path)
        data = read_file(path)
    except (OSError, BadRecordError) as error:
        return Finding(key, 0, 0, problem=UNREADABLE, detail=reason(error)), b""
    known: dict[str, Any] = {
        "key": key,
        "num_bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "digest": hashlib.blake2b(data, digest_size=16).hexdigest(),
    }
    try:
        photo = open_photo(data, settings.max_pixels)
    except PhotoError as error:
        return Finding(**known, problem=error.reason, detail=error.detail), b""
    known["notes"] = photo.notes
    pixels = photo.pixels_HW3
    try:
        found = faces(key, pixels)
    except KeyError:
        return Finding(**known, problem=NO_LANDMARKS), thumbnail(pixels)
    if not found:
        return Finding(**known, problem=NO_FACE), thumbnail(pixels)
    known["num_faces"] = len(found)
    face = choose_face(found, pixels.shape[0], pixels.shape[1], settings.face)
    try:
        crop = align(pixels, face.landmarks_52, settings.size)
    except ValueError as error:
        return Finding(**known, problem=DISTORTED, detail=str(error)), thumbnail(pixels)
    return Finding(**known, quality=measure(crop, face.landmarks_52, face.score)), encode_jpeg(crop)


def thumbnail(pixels: Pixels) -> bytes:
    """A small JPEG of a picture, for the report."""
    image = Image.fromarray(pixels)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL), reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    return out.getvalue()


def align_photo(path: Path, settings: Settings) -> tuple[Pixels, int]:
    """The aligned face of one photo, uint8 RGB (S, S, 3), and how many faces the photo shows.

    Raises:
        ValueError: it cannot be opened, or shows no face.
    """
    try:
        pixels = open_photo(read_file(path), settings.max_pixels).pixels_HW3
    except BadRecordError as error:
        raise ValueError(f"cannot open the photo '{path}': {error}") from None
    found = find_faces(build_detector(settings.detector, settings.min_score), pixels)
    if not found:
        raise ValueError(f"no face found in '{path}' ({pixels.shape[1]}x{pixels.shape[0]} pixels)")
    face = choose_face(found, pixels.shape[0], pixels.shape[1], settings.face)
    return align(pixels, face.landmarks_52, settings.size), len(found)
