"""Open a data set from a few words: ``open_reader("DIR")``, ``"DIR/train.rec"``, ``"synthetic:ids=1000"``."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from facescale.data.readers.base import Reader
from facescale.data.readers.combine import ConcatReader, with_min_images
from facescale.data.readers.folder import FolderReader
from facescale.data.readers.recordio import RecordReader
from facescale.data.spec import split_sources
from facescale.guard.reading import reading
from facescale.registry import lookup

__all__ = ["READERS", "open_reader"]

RECORDS = "train.rec"


def _synthetic(rest: str) -> Reader:
    from facescale.data.synthetic.faces import parse_spec

    return parse_spec(f"synthetic:{rest}")


# scheme -> what opens the text after "scheme:"
READERS: dict[str, Callable[[str], Reader]] = {
    "folder": FolderReader,
    "rec": RecordReader,
    "synthetic": _synthetic,
}


def open_reader(spec: str | Path | Sequence[str | Path], *, min_images: int = 1) -> Reader:
    """Open a data set.

    Args:
        spec: a folder of identity folders, a .rec file or a folder that holds train.rec, or "scheme:..."
            with a scheme of ``READERS``. Several, as a list or joined by " + ", are trained together: their
            identities are all different. A path that exists is never taken apart.
        min_images: leave out identities with fewer images; the others are renumbered.

    Raises:
        ValueError: unknown scheme, missing path, or data that is not what it should be.
    """
    texts = split_sources(spec)
    if not texts:
        raise ValueError("no training data given; name a folder, a .rec file or synthetic:...")
    readers = [_open_one(text) for text in texts]
    reader = readers[0] if len(readers) == 1 else ConcatReader(readers, texts)
    return with_min_images(reader, min_images)


def _open_one(text: str) -> Reader:
    with reading(text, "the data", "repair it, or get a complete copy of it"):
        return _opened(text)


def _opened(text: str) -> Reader:
    path = Path(text)
    if os.path.isdir(path):  # unlike Path's, it takes a text that is too long for a name
        records = path / RECORDS
        return RecordReader(records) if records.is_file() else FolderReader(path)
    if os.path.isfile(path):
        if path.suffix != ".rec":
            raise ValueError(f"'{text}' is not a .rec file; give a folder of identity folders or a .rec file")
        return RecordReader(path)
    found = re.match(r"([a-z][a-z0-9]+):", text)  # two letters at least: C:\faces is a path
    if found:
        return lookup("data scheme", READERS, found[1])(text[found.end() :])
    raise ValueError(
        f"data '{text}' does not exist; give a folder, a .rec file, or one of:"
        f" {', '.join(f'{scheme}:...' for scheme in READERS)}"
    )
