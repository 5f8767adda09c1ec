"""Read an LMDB database of images with a text list of its keys and their labels, as F2C packs them."""

from pathlib import Path

from facescale.arrays import IntArray
from facescale.data.readers.datum import read_datum
from facescale.data.readers.key_lists import read_list
from facescale.data.readers.labelled import Labelled, numbered
from facescale.data.readers.lmdb_file import LmdbFile
from facescale.data.readers.saved_index import (
    WORTH_SAVING,
    compact,
    index_places,
    load_index,
    save_index,
    state_of,
)
from facescale.data.readers.texts import Texts
from facescale.data.spec import split_options
from facescale.guard.reading import check_file

Listed = tuple[Texts, IntArray, IntArray]
"""Keys of the images, the labels, and the number of each image's label."""


class LmdbReader(Labelled):
    """An LMDB database of images with a list of keys and labels (F2C), in the order of the list.

    ``PATH`` is the folder of the database (or its data.mdb), ``PATH?keys=FILE`` names the list of lines
    "key label"; without it the only ``*_kv.txt`` of the folder is taken. Values are protobuf ``Datum``
    messages or pictures. Several databases are joined as other sources are: each keeps its identities.

    Raises:
        ValueError: no such database or list, or a line that cannot be read.
    """

    def __init__(self, spec: str | Path) -> None:
        path_text, options = split_options(str(spec), ["keys"])
        path = Path(path_text)
        if not path.exists():
            raise ValueError(f"'{path}' does not exist; give the folder of an LMDB database")
        folder = path if path.is_dir() else path.parent
        if path.is_dir() and not (path / "data.mdb").is_file():
            raise ValueError(f"'{path}' holds no LMDB database (data.mdb); give the folder of one")
        self.list_file = Path(options["keys"]) if "keys" in options else _only_list(folder)
        self._keys, labels, ids = _listed(self.list_file)
        self._file = LmdbFile(path)
        super().__init__(folder, labels, ids)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        """Encoded image and identity of ``index``.

        Raises:
            BadRecordError: the key is missing, or its value holds no picture.
        """
        return read_datum(self._file[self._keys.raw(index)]), int(self.ids[index])

    @property
    def num_stored(self) -> int:
        """Number of values in the database."""
        return len(self._file)

    def key(self, index: int) -> str:
        """Key of image ``index``."""
        return self._keys[index]

    def image_size(self, index: int) -> int:
        """0: asking for a size would read the image, so a digest compares contents of a few alone."""
        return 0


def _listed(path: Path) -> Listed:
    """Keys, labels and numbers of the labels of a list; a long one is read once, then kept as an index."""
    check_file(path, "the list")
    if (found := kept_list(path)) is not None:
        return found
    keys, labels, ids = built = build_list(path)
    if len(keys) >= WORTH_SAVING:
        block, ends = keys.block
        columns = {"keys": block, "ends": compact(ends), "id": ids, "label": labels}
        save_index(index_places([str(path)]), state_of(path), columns)
    return built


def kept_list(path: Path) -> Listed | None:
    """What an earlier call kept of a list; None if nothing that fits it."""
    limits = {"ends": 1 << 63, "id": 1 << 63, "label": 1 << 63}
    found = load_index(index_places([str(path)]), state_of(path), limits)
    if not found or found["id"].max() >= len(found["label"]) or len(found["ends"]) != len(found["id"]) + 1:
        return None
    return Texts.of_block(found["keys"], found["ends"]), found["label"], found["id"]


def build_list(path: Path) -> Listed:
    """Keys, labels and numbers of the labels, from the lines.

    Raises:
        ValueError: a line cannot be read.
    """
    keys, label_N = read_list(path)
    return keys, *numbered(label_N)


def _only_list(folder: Path) -> Path:
    found = sorted(folder.glob("*_kv.txt"))
    if len(found) != 1:
        raise ValueError(
            f"'{folder}' has {len(found)} lists of keys (*_kv.txt); name the one with lines 'key label':"
            f" lmdb:{folder}?keys=FILE"
        )
    return found[0]
