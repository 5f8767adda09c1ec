"""Open a data set from a few words: ``open_reader("DIR")``, ``"train.rec"``, ``"lmdb:DIR"``, and so on."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facescale.data.readers.base import Reader
from facescale.data.readers.combine import ConcatReader, with_min_images
from facescale.data.readers.edits import edited, read_edits
from facescale.data.readers.folder import FolderReader
from facescale.data.readers.image_list import ListReader
from facescale.data.readers.lmdb_set import LmdbReader
from facescale.data.readers.parquet import ParquetReader
from facescale.data.readers.recordio import RecordReader
from facescale.data.readers.shards import ShardReader
from facescale.data.readers.stream import StreamReader
from facescale.data.readers.webface import open_webface
from facescale.data.spec import split_sources
from facescale.guard.reading import reading
from facescale.registry import lookup

if TYPE_CHECKING:  # reading data needs no schema
    from facescale.config import DataConfig

__all__ = ["READERS", "open_reader", "open_training_data"]


class MissingDataError(ValueError):
    """Data of a name that is neither a path nor a scheme."""


RECORDS, DATABASE, LISTS = "train.rec", "data.mdb", ("train.lst", "label.txt")


def _synthetic(rest: str) -> Reader:
    """Synthetic faces of people who do not exist: ``synthetic:ids=1000,images=20``."""
    from facescale.data.synthetic.faces import parse_spec

    return parse_spec(f"synthetic:{rest}")


# scheme -> what opens the text after "scheme:"
READERS: dict[str, Callable[[str], Reader]] = {
    "folder": FolderReader,
    "rec": RecordReader,
    "lmdb": LmdbReader,
    "shards": ShardReader,
    "stream": StreamReader,
    "parquet": ParquetReader,
    "list": ListReader,
    "webface": open_webface,
    "synthetic": _synthetic,
}

# suffix of a file -> its scheme
_SUFFIXES = {".rec": "rec", ".mdb": "lmdb", ".tar": "shards", ".parquet": "parquet", ".lst": "list"}


def open_training_data(config: "DataConfig") -> Reader:
    """The set that a config trains on: its sources joined and edited, small identities left out.

    Raises:
        ValueError: as `open_reader`, or edit lists that do not fit the data.
    """
    edits = [config.edits] if isinstance(config.edits, str) else config.edits
    try:
        return open_reader(config.train, min_images=config.min_images, edits=edits)
    except MissingDataError as error:
        raise ValueError(f"{error}; your own data: --set data.train=PATH") from None


def open_reader(
    spec: str | Path | Sequence[str | Path], *, min_images: int = 1, edits: Sequence[str | Path] = ()
) -> Reader:
    """Open a data set.

    Args:
        spec: a folder of identity folders, a .rec, .tar, .parquet or .lst file, a folder that holds a packed
            set, or "scheme:..." with a scheme of ``READERS``. Several, as a list or joined by " + ", are
            trained together: their identities are all different. A path that exists is never taken apart.
        min_images: leave out identities with fewer images; the others are renumbered.
        edits: edit lists (`facescale.data.readers.edits`), which are followed first.

    Raises:
        ValueError: unknown scheme, missing path, or data that is not what it should be.
    """
    texts = split_sources(spec)
    if not texts:
        raise ValueError("no training data given; name a folder, a .rec file or synthetic:...")
    readers = [_open_one(text) for text in texts]
    reader = readers[0] if len(readers) == 1 else ConcatReader(readers, texts)
    changed = with_min_images(edited(reader, read_edits(edits)), min_images)
    if any(one is not changed and isinstance(one, StreamReader) for one in readers):
        raise ValueError(
            "a stream is read in its own order, so it cannot be joined, edited or thinned out; copy it to"
            " shards first: facescale convert-data stream:... FOLDER --form shards"
        )
    return changed


def _open_one(text: str) -> Reader:
    with reading(text, "the data", "repair it, or get a complete copy of it"):
        return _opened(text)


def _opened(text: str) -> Reader:
    path = Path(text)
    if os.path.isdir(path):  # unlike Path's, it takes a text that is too long for a name
        return _open_folder(path)
    if os.path.isfile(path):
        if path.suffix not in _SUFFIXES:
            raise ValueError(
                f"'{text}' is not a .rec file; give a folder of identity folders or a .rec file"
                f" ({', '.join(_SUFFIXES)} are read, other lists with list:FILE)"
            )
        return READERS[_SUFFIXES[path.suffix]](text)
    found = re.match(r"([a-z][a-z0-9]+):", text)  # two letters at least: C:\faces is a path
    if found:
        return lookup("data scheme", READERS, found[1])(text[found.end() :])
    raise MissingDataError(
        f"data '{text}' does not exist; give a folder, a .rec file, or one of:"
        f" {', '.join(f'{scheme}:...' for scheme in READERS)}"
    )


def _open_folder(path: Path) -> Reader:
    """A packed set if the folder holds one, else identity folders."""
    if (path / RECORDS).is_file():
        return RecordReader(path / RECORDS)
    if (path / DATABASE).is_file():
        return LmdbReader(path)
    for name in LISTS:
        if (path / name).is_file():
            return ListReader(path / name)
    with os.scandir(path) as entries:
        shown = [entry for entry in entries if not entry.name.startswith(".")]
    if not any(entry.is_dir() for entry in shown):
        for suffix, reader in ((".tar", ShardReader), (".parquet", ParquetReader)):
            if any(entry.name.endswith(suffix) for entry in shown):
                return reader(path)
    return FolderReader(path)
