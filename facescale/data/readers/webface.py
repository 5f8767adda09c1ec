"""Read chosen roots of WebFace260M's folder layout: ``ROOT/ROOT_PART_NUMBER/ROOT_IMAGE.jpg``."""

import os
from pathlib import Path

import numpy as np

from facescale.data.readers.combine import SubsetReader
from facescale.data.readers.folder import FolderReader
from facescale.data.spec import split_options

_ROOTS = tuple("0123456789")


def open_webface(spec: str | Path) -> FolderReader | SubsetReader:
    """The folders of WebFace42M, or the part that some roots make: ``DIR?roots=0`` is WebFace4M, 0-2 are 12M.

    Raises:
        ValueError: no such folder or roots.
    """
    path, options = split_options(str(spec), ["roots"])
    reader = FolderReader(path)
    if "roots" not in options:
        return reader
    wanted = _roots(options["roots"])
    chosen = np.array([name.split("/")[0] in wanted for name in reader.names])
    if not chosen.any():
        there = ", ".join(sorted(os.listdir(path))[:12])
        raise ValueError(f"'{path}' has no roots {options['roots']}; it has: {there}")
    return SubsetReader(reader, np.flatnonzero(chosen[reader.ids]))


def _roots(text: str) -> set[str]:
    """The roots of "3" or "0-2"."""
    first, dash, last = text.partition("-")
    last = last if dash else first
    if not (first in _ROOTS and last in _ROOTS and first <= last):
        raise ValueError(f"roots = '{text}' must be a digit or a range of digits, for example 0-2")
    return {root for root in _ROOTS if first <= root <= last}
