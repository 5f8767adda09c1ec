"""Photos with five landmarks as aligned faces, cut out when they are asked for."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from facescale.arrays import FloatArray, Pixels
from facescale.data.loading.decode import decode
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.folder import read_file
from facescale.evaluate.feature_cache import content_digest

Align = Callable[[Pixels, FloatArray, int], Pixels]


class AlignedImages:
    """Faces of ``size`` pixels, one for each file below ``folder``.

    Args:
        folder: of the photos.
        files: their paths below it.
        landmarks: (N, 5, 2), pixels in the photo.
        align: brings five landmarks to the template: (photo, landmarks, size) -> face.
        size: side of the faces, pixels.
    """

    def __init__(
        self, folder: Path, files: Sequence[str], landmarks: FloatArray, align: Align, size: int
    ) -> None:
        self._folder, self._files, self._landmarks = folder, files, landmarks
        self._align, self._size = align, size

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Pixels:
        try:
            return self._align(decode(self._read(index)), self._landmarks[index], self._size)
        except ValueError as error:
            raise BadRecordError(str(error)) from None

    def key(self, index: int) -> str:
        """Path of the photo."""
        return str(self._folder / self._files[index])

    def digest(self, index: int) -> bytes:
        """Of the photo and its landmarks; nothing is decoded."""
        points = np.ascontiguousarray(self._landmarks[index], np.float64)
        return content_digest(b"aligned", self._read(index), points.tobytes())

    def _read(self, index: int) -> bytes:
        return read_file(self._folder / self._files[index])
