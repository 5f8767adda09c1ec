"""From photo files to faces that can be compared: found, aligned, embedded."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from facescale.arrays import Pixels
from facescale.data.loading.decode import resized
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.folder import read_file
from facescale.gallery.gallery import Face
from facescale.inference.model import Model
from facescale.prepare.align import align
from facescale.prepare.detect import Detector, available_detector, build_detector, choose_face
from facescale.prepare.photos import is_photo, open_photo
from facescale.prepare.search import find_faces

ALIGNED = 112  # pixels of the template that data sets are aligned to
_BATCH = 32
_FULL_QUALITY = 35.0  # pixels between the eyes of the template; a smaller face is enlarged


@dataclass(frozen=True)
class FoundFace:
    """A face of a photo.

    Attributes:
        pixels: aligned, uint8 RGB (S, S, 3).
        quality: 0 to 1; how much its embedding is to be trusted.
        note: what a person should know of it, or nothing.
    """

    pixels: Pixels
    quality: float = 1.0
    note: str = ""


class FindFace(Protocol):
    """Finds the face of a photo and aligns it to ``size`` pixels."""

    def __call__(self, photo_HW3: Pixels, size: int) -> FoundFace:
        """The face; raises ValueError where there is none."""
        ...


def aligned_only(photo_HW3: Pixels, size: int) -> FoundFace:
    """Take a photo for a face that is aligned already, to 112 pixels or to those of the model.

    Raises:
        ValueError: it has another size.
    """
    height, width = photo_HW3.shape[:2]
    if height != width or width not in (size, ALIGNED):
        raise ValueError(
            f"it is {width}x{height} pixels and not an aligned face of {ALIGNED}x{ALIGNED}; align it first, "
            "or have faces found: pip install 'facescale[detect]', and --detect with embed"
        )
    return FoundFace(photo_HW3 if width == size else resized(photo_HW3, size, size))


def aligned_of_any_size(photo_HW3: Pixels, size: int) -> FoundFace:
    """Take a square photo for an aligned face of any size, for a model that was trained on resized ones.

    Raises:
        ValueError: it is not square.
    """
    height, width = photo_HW3.shape[:2]
    return aligned_only(resized(photo_HW3, size, size) if height == width else photo_HW3, size)


def find_face(detector: Detector) -> FindFace:
    """Find the face of a photo with ``detector``; a photo that is an aligned face is taken as it is.

    The largest face is taken. Its quality is the detector's score, less where the face has fewer pixels than
    the template.
    """

    def find(photo_HW3: Pixels, size: int) -> FoundFace:
        height, width = photo_HW3.shape[:2]
        if height == width and width in (size, ALIGNED):
            return aligned_only(photo_HW3, size)
        faces = find_faces(detector, photo_HW3)
        if not faces:
            raise ValueError(f"no face was found in the photo of {width}x{height} pixels")
        face = choose_face(faces, height, width)
        eyes = float(np.hypot(*(face.landmarks_52[1] - face.landmarks_52[0])))
        note = f"the largest of {len(faces)} faces" if len(faces) > 1 else ""
        quality = face.score * min(1.0, eyes / _FULL_QUALITY)
        return FoundFace(align(photo_HW3, face.landmarks_52, size), quality, note)

    return find


def face_finder() -> FindFace:
    """``find_face`` with the detector that is installed, else ``aligned_only``."""
    try:
        name = available_detector()
    except ValueError:
        return aligned_only
    return find_face(build_detector(name))


def embed_photos(
    model: Model,
    paths: Sequence[str | Path],
    find: FindFace = aligned_only,
    notes: dict[str, str] | None = None,
) -> tuple[list[Face], dict[str, str]]:
    """Embed the face of each photo.

    Args:
        model: what embeds.
        paths: image files.
        find: finds and aligns the face of a photo.
        notes: receives what a person should know of a photo, by path.

    Returns:
        The faces, their keys the paths as text; reason by path of the photos without one.
    """
    faces: list[Face] = []
    left_out: dict[str, str] = {}
    size = model.contract.size
    if find is aligned_only and model.contract.resize == "area":
        find = aligned_of_any_size
    for start in range(0, len(paths), _BATCH):
        found: list[tuple[str, FoundFace]] = []
        for path in paths[start : start + _BATCH]:
            try:
                found.append((str(path), find(open_photo(read_file(path)).pixels_HW3, size)))
            except (BadRecordError, ValueError) as error:
                left_out[str(path)] = str(error)
        if notes is not None:
            notes |= {key: face.note for key, face in found if face.note}
        if found:
            embeddings = model.embed(np.stack([face.pixels for _, face in found]))
            faces += [
                Face(key, embedding, face.quality)
                for (key, face), embedding in zip(found, embeddings, strict=True)
            ]
    return faces, left_out


def photos_of(path: Path) -> list[Path]:
    """A photo itself, or the photos that lie directly in a folder, by name.

    Raises:
        ValueError: nothing there, or a folder without photos.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"'{path}' does not exist; give a photo or a folder of photos")
    found = sorted(one for one in path.iterdir() if _is_shown(one))
    if not found:
        inner = "; photos in its folders are not searched" if any(map(Path.is_dir, path.iterdir())) else ""
        raise ValueError(f"the folder '{path}' holds no photo{inner}")
    return found


def people_of(root: Path) -> dict[str, list[Path]]:
    """Photos by person of a folder that has a folder for each person.

    Raises:
        ValueError: ``root`` does not exist, or no folder with photos below it.
    """
    if not root.exists():
        raise ValueError(
            f"'{root}' does not exist; give the folder that has a folder of photos for each person"
        )
    folders: Iterable[Path] = sorted(one for one in root.iterdir() if one.is_dir()) if root.is_dir() else ()
    people = {
        folder.name: photos
        for folder in folders
        if (photos := sorted(one for one in folder.iterdir() if _is_shown(one)))
    }
    if not people:
        packed = any(root.glob("*.rec")) if root.is_dir() else root.suffix == ".rec"
        what = "is a packed data set and has" if packed else "has"
        raise ValueError(
            f"'{root}' {what} no folder with photos: give raw photos, a folder for each person, or use --name"
        )
    return people


def _is_shown(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and is_photo(path)
