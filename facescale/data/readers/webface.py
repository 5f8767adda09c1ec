"""Read chosen roots of WebFace260M's folder layout: ``ROOT/ROOT_PART_NUMBER/ROOT_IMAGE.jpg``."""

import os
from pathlib import Path

import numpy as np

from facescale.data.readers.combine import SubsetReader
from facescale.data.readers.folder import FolderReader
from facescale.data.spec import split_options

_ROOTS = range(10)


def open_webface(spec: str | Path) -> FolderReader | SubsetReader:
    """The folders of WebFace42M, or the part that some roots make: ``DIR?roots=0`` is WebFace4M, 0-2 are 12M.

    Raises:
        ValueError: no such folder or roots.
    """
    path, options = split_options(str(spec), {"roots": _roots}, "webface:WebFace42M?roots=0-2")
    reader = FolderReader(path)
    if "roots" not in options:
        return reader
    wanted = {str(root) for root in options["roots"]}
    chosen = np.array([name.split("/")[0] in wanted for name in reader.names])
    if not chosen.any():
        there = ", ".join(sorted(os.listdir(path))[:12])
        raise ValueError(f"'{path}' has no roots {min(wanted)} to {max(wanted)}; it has: {there}")
    return SubsetReader(reader, np.flatnonzero(chosen[reader.ids]))


def _roots(text: str) -> range:
    first, _, last = text.partition("-")
    found = range(int(first), int(last or first) + 1)
    if not found or found[0] not in _ROOTS or found[-1] not in _ROOTS:
        raise ValueError
    return found
