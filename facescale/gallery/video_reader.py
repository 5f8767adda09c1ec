"""A video as a data source: the face of each chosen frame is found and aligned when it is read."""

import threading
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray, Pixels
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.loose import NO_ID
from facescale.gallery.photos import FindFace
from facescale.prepare.video import SUFFIXES, Video

_AHEAD = 64  # aligned faces kept for threads that ask for frames out of order


class FacesOfVideo:
    """A reader whose images are the faces of a video's frames; nobody has an identity.

    Frames are decoded in their order, whichever thread asks; a face that was passed is kept for a while.

    Args:
        path: the video.
        every: seconds from one frame to the next.
        find: finds and aligns the face of a frame.
        size: side of the aligned faces, pixels.

    Raises:
        ValueError: as `Video`.
    """

    num_ids = 0
    finds_faces = True

    def __init__(self, path: Path, every: float, find: FindFace, size: int) -> None:
        self._path, self._find, self._size = path, find, size
        self._video = Video(path, every)
        self._lock = threading.Lock()
        self._passed: dict[int, Pixels | BadRecordError] = {}
        self._next = 0
        self.ids: IntArray = np.full(len(self._video), NO_ID, np.int64)

    def __len__(self) -> int:
        return len(self._video)

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        """The aligned face of frame ``index``.

        Raises:
            BadRecordError: the frame cannot be decoded, or shows no face.
        """
        with self._lock:
            if index not in self._passed:
                first = self._next if self._next <= index < self._next + _AHEAD else index
                for number in range(first, index + 1):
                    self._passed[number] = self._face(number)
                self._next = index + 1
                while len(self._passed) > _AHEAD:
                    del self._passed[next(iter(self._passed))]
            found = self._passed.pop(index)
        if isinstance(found, BadRecordError):
            raise found
        return found, NO_ID

    def _face(self, number: int) -> Pixels | BadRecordError:
        try:
            return self._find(self._video[number], self._size).pixels
        except BadRecordError as error:
            return error
        except ValueError as error:
            return BadRecordError(str(error))

    def key(self, index: int) -> str:
        """Path and time of frame ``index``, such as "clip.mp4#t=1.500"."""
        return f"{self._path}#t={self._video.times_N[index]:.3f}"


def is_video(source: str | Path) -> bool:
    """Whether a text names the file of a video, by its suffix."""
    path = Path(source)
    return path.suffix.lower() in SUFFIXES and path.is_file()
