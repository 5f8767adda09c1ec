"""Licence and provenance of a data set: dataset.json beside it, a flat table of texts."""

import json
from collections.abc import Mapping
from pathlib import Path

from facescale.data.readers.base import Reader
from facescale.guard.reading import parse_json, read_text

INFO = "dataset.json"
_MOST = 1 << 20  # bytes; a licence in full has 40 KB


def read_info(folder: Path) -> dict[str, str]:
    """The texts of ``folder``/dataset.json by key; none where there is no such file.

    Raises:
        ValueError: the file is not a table of texts.
    """
    file = folder / INFO
    if not file.is_file():
        return {}
    found = parse_json(read_text(file, "the facts", _MOST), file, "the facts")
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"'{file}' is not a JSON table of texts; correct it, or remove it")
    return found


def write_info(folder: Path, info: Mapping[str, str]) -> None:
    """Write what `read_info` reads; nothing where there is nothing to tell."""
    if info:
        (folder / INFO).write_text(json.dumps(dict(info), indent=1), "utf-8")


def data_info(reader: Reader) -> dict[str, str]:
    """Licence, source and whatever else is known of a data set, as texts by key."""
    found: Mapping[str, str] = getattr(reader, "info", {})
    return dict(found)
