"""Read image files that a list names with their labels: train.lst of im2rec, label.txt, WebFace42M's."""

import os
from pathlib import Path

from facescale.data.readers.folder import read_file
from facescale.data.readers.key_lists import check_inside, read_list
from facescale.data.readers.labelled import Labelled, numbered
from facescale.data.spec import split_options


class ListReader(Labelled):
    """Image files that a list names with their labels (.lst, label.txt), in its order.

    What its lines may be: `facescale.data.readers.key_lists.read_list`. Paths are below the folder of the
    list, or below FOLDER of ``LIST?root=FOLDER``. An image that is missing shows when it is read.

    Raises:
        ValueError: no such list or folder, a line that cannot be read, or a path that leads out of the root.
    """

    def __init__(self, spec: str | Path) -> None:
        path, options = split_options(str(spec), ["root"])
        self.root = Path(options["root"]) if "root" in options else Path(path).parent
        if not self.root.is_dir():
            raise ValueError(f"'{self.root}' is not a folder; name the one where the paths of '{path}' start")
        self._files, labels = read_list(Path(path))
        check_inside(self._files, Path(path))
        super().__init__(Path(path).parent, *numbered(labels))

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image and identity of ``index``.

        Raises:
            BadRecordError: the file cannot be read.
        """
        return read_file(f"{self.root}/{self._files[index]}"), int(self.ids[index])

    def key(self, index: int) -> str:
        """Path of image ``index`` below the root."""
        return self._files[index]

    def image_size(self, index: int) -> int:
        """Bytes of the file; -1 if it cannot be asked."""
        try:
            return os.stat(f"{self.root}/{self._files[index]}").st_size
        except OSError:
            return -1
