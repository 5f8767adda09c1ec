"""Images of unknown people in one folder."""

from collections import Counter
from pathlib import Path

import numpy as np

from facescale.data.readers.folder import read_file
from facescale.data.readers.pictures import is_picture, kind_of

NO_ID = -1  # of an image that lies in no identity's folder


class LooseImages:
    """A reader of the image files that lie in one folder, of people unknown.

    Attributes:
        ids: int64 (N,), all `NO_ID`.
        passed_over: files that are not images, by suffix.
    """

    num_ids = 0

    def __init__(self, root: Path) -> None:
        self._root = root
        names = sorted(path.name for path in root.iterdir() if path.is_file())
        self._files = [name for name in names if not name.startswith(".") and is_picture(root / name)]
        self.passed_over = Counter(map(kind_of, set(names).difference(self._files)))
        self.ids = np.full(len(self._files), NO_ID, np.int64)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image ``index``."""
        return read_file(self._root / self._files[index]), NO_ID

    def key(self, index: int) -> str:
        """Its file name."""
        return self._files[index]
