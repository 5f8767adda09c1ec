"""Photos as a data source: the face of each is found and aligned when it is read."""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray, Pixels
from facescale.data.readers.base import BadRecordError, Reader
from facescale.data.readers.folder import read_file
from facescale.data.readers.loose import NO_ID
from facescale.gallery.photos import FindFace, aligned_only, find_face
from facescale.gallery.video_reader import FacesOfVideo, is_video
from facescale.inference.embed_files import open_source
from facescale.prepare.detect import available_detector, build_detector
from facescale.prepare.photos import is_photo, open_photo
from facescale.prepare.video import seconds_of

_EVERY = "1s"  # from one frame of a video to the next


class FacesOfPhotos:
    """A reader whose images are the faces of photos; nobody has an identity.

    Args:
        paths: image files.
        find: finds and aligns the face of a photo.
        size: side of the aligned faces, pixels.

    Attributes:
        finds_faces: whether its images were found and aligned, not taken for aligned ones.
    """

    num_ids = 0

    def __init__(self, paths: Sequence[Path], find: FindFace, size: int) -> None:
        self._paths, self._find, self._size = list(paths), find, size
        self.finds_faces = find is not aligned_only
        self._lock = threading.Lock()  # detectors are not all safe to share between threads
        self.ids: IntArray = np.full(len(self._paths), NO_ID, np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        """The aligned face of photo ``index``.

        Raises:
            BadRecordError: the photo cannot be read, or shows no face.
        """
        pixels_HW3 = open_photo(read_file(self._paths[index])).pixels_HW3
        try:
            with self._lock:
                return self._find(pixels_HW3, self._size).pixels, NO_ID
        except ValueError as error:
            raise BadRecordError(str(error)) from None

    def key(self, index: int) -> str:
        """Path of photo ``index``."""
        return str(self._paths[index])


def faces_of(source: str, size: int, detect: bool) -> FacesOfPhotos | None:
    """The faces of the photos that a text names; None where it names a data set of aligned images.

    Args:
        source: see `photo_paths`, or what `facescale.data.open_reader` takes.
        size: side of the aligned faces, pixels.
        detect: find the faces; else photos are taken for aligned faces.

    Raises:
        ValueError: no photo, or no detector is installed.
    """
    if detect:
        return FacesOfPhotos(photo_paths(source), find_face(build_detector(available_detector())), size)
    path = Path(source)
    if path.is_file() and (path.suffix == ".txt" or is_photo(path)):
        return FacesOfPhotos(photo_paths(source), aligned_only, size)
    return None


def open_faces(size: int, source: str, detect: bool, every: str | None = None) -> Reader:
    """The faces of photos or of a video, or a data set of aligned images.

    Args:
        size: side of the aligned faces, pixels.
        source: a video, or as for `faces_of`.
        detect: find the faces of photos, as is always done in a video.
        every: time from one frame of a video to the next, such as "0.5s".

    Raises:
        ValueError: as `faces_of` and `facescale.prepare.video.Video`; a time for what is no video.
    """
    if is_video(source):
        find = find_face(build_detector(available_detector()))
        return FacesOfVideo(Path(source), seconds_of(every or _EVERY), find, size)
    if every is not None:
        raise ValueError(f"a time between frames ('{every}') is for a video, and '{source}' is none")
    return faces_of(source, size, detect) or open_source(source)


def photo_paths(source: str | Path) -> list[Path]:
    """The photos that a text names: one photo, a .txt list of paths, or all below a folder.

    Paths in a list are relative to the list.

    Raises:
        ValueError: nothing there, or no photo in it.
    """
    path = Path(source)
    if path.suffix == ".txt" and path.is_file():
        lines = [
            line for line in path.read_text("utf-8", errors="surrogateescape").splitlines() if line.strip()
        ]
        found = [path.parent / line for line in lines]
    elif path.is_file():
        found = [path]
    else:
        found = sorted(
            one for one in path.rglob("*") if one.is_file() and not one.name.startswith(".") and is_photo(one)
        )
    if not found:
        raise ValueError(
            f"'{source}' names no photo; give a photo, a .txt list of photos or a folder with some"
        )
    return found
