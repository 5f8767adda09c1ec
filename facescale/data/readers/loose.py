"""Images of unknown people in one folder."""

from pathlib import Path

import numpy as np

from facescale.data.readers.folder import SUFFIXES, read_file

NO_ID = -1  # of an image that lies in no identity's folder


class LooseImages:
    """A reader of the image files that lie in one folder, of people unknown."""

    num_ids = 0

    def __init__(self, root: Path) -> None:
        self._root = root
        self._files = sorted(path.name for path in root.iterdir() if is_image_file(path))
        self.ids = np.full(len(self._files), NO_ID, np.int64)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image ``index``."""
        return read_file(self._root / self._files[index]), NO_ID

    def key(self, index: int) -> str:
        """Its file name."""
        return self._files[index]


def is_image_file(path: Path) -> bool:
    """Whether a file looks like an image by its name."""
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
