"""Edit lists: a small CSV that drops or moves images, drops or merges identities, without repacking a set.

Columns ``action``, ``name``, ``into``; names are those that `facescale inspect` and error messages show::

    action,name,into
    drop_image,ann/3.jpg,
    move_image,ann/4.jpg,bob
    drop_identity,zoe,
    merge_identity,cy,ann

Labels are those of the source, so the order of the lines does not matter: an image that is moved or dropped
goes its own way, and the others of its identity go where the identity goes.
"""

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.base import Reader, identity_names
from facescale.data.readers.combine import SubsetReader
from facescale.files import replacing
from facescale.guard.limits import LIST_BYTES
from facescale.guard.reading import read_text
from facescale.guard.shown import csv_cell, from_csv_cell
from facescale.registry import nearest

Action = Literal["drop_image", "move_image", "drop_identity", "merge_identity"]
COLUMNS = ("action", "name", "into")
_DROPPED = -1


@dataclass(frozen=True)
class Edits:
    """What is to be changed.

    Attributes:
        images: key of an image -> name of the identity that it belongs to, or None to drop it.
        identities: name of an identity -> name of the one that it is part of, or None to drop it.
    """

    images: dict[str, str | None] = field(default_factory=dict)
    identities: dict[str, str | None] = field(default_factory=dict)


def read_edits(paths: Iterable[str | Path]) -> Edits:
    """The edits of some lists.

    Raises:
        ValueError: a list cannot be read, an unknown action, a missing name, or two lines that disagree.
    """
    edits = Edits()
    for path in paths:
        text = read_text(path, "the edit list", LIST_BYTES, errors="surrogateescape")
        rows = csv.reader(text.splitlines(keepends=True), strict=True)
        try:
            header = next(rows, [])
            if tuple(header) != COLUMNS:
                raise ValueError(f"'{path}' must begin with the line {','.join(COLUMNS)}")
            for row in rows:
                if row:
                    _add(edits, [from_csv_cell(cell) for cell in row], f"line {rows.line_num} of '{path}'")
        except csv.Error as error:
            raise ValueError(f"line {rows.line_num} of '{path}' is not a CSV: {error}") from None
    return edits


def _add(edits: Edits, row: Sequence[str], where: str) -> None:
    action, name, into = (*row, "", "")[:3]
    if action not in get_args(Action):
        raise ValueError(
            f"{where} has the action '{action}'{nearest(action, get_args(Action))}; it must be one of:"
            f" {', '.join(get_args(Action))}"
        )
    needs_into = action in ("move_image", "merge_identity")
    if not name or len(row) > len(COLUMNS) or bool(into) != needs_into:
        raise ValueError(f"{where} must be {action},NAME,{'INTO' if needs_into else ''}")
    table = edits.images if action.endswith("image") else edits.identities
    target = into if needs_into else None
    if table.setdefault(name, target) != target:
        raise ValueError(f"{where} says of '{name}' something else than a line before; keep one of them")


def write_edits(path: str | Path, edits: Edits) -> None:
    """Write an edit list that `read_edits` reads."""
    rows = [("drop_image" if into is None else "move_image", key, into) for key, into in edits.images.items()]
    rows += [
        ("drop_identity" if into is None else "merge_identity", name, into)
        for name, into in edits.identities.items()
    ]
    with (
        replacing(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([action, csv_cell(name), csv_cell(into or "")] for action, name, into in rows)


def edited(reader: Reader, edits: Edits) -> Reader:
    """The set as the edits make it; identities without images are gone, the others renumbered.

    Raises:
        ValueError: an image or identity that the set does not have, identities that are merged in a circle,
            or nothing that is left.
    """
    if not edits.images and not edits.identities:
        return reader
    numbers = {name: number for number, name in enumerate(identity_names(reader))}
    named = [*edits.identities, *(into for into in edits.identities.values() if into is not None)]
    named += [into for into in edits.images.values() if into is not None]
    _check_known("identity", [name for name in named if name not in numbers])
    goes_to = np.arange(reader.num_ids)
    for name in edits.identities:
        goes_to[numbers[name]] = _end(name, edits, numbers)
    label_N: IntArray = goes_to[reader.ids]
    wanted = dict(edits.images)
    for index in range(len(reader)) if wanted else ():
        key = reader.key(index)
        if key in wanted:
            into = wanted.pop(key)
            label_N[index] = _DROPPED if into is None else goes_to[numbers[into]]
    _check_known("image", list(wanted))
    kept = np.flatnonzero(label_N != _DROPPED)
    if not len(kept):
        raise ValueError("the edit lists drop every image; leave some of them")
    return SubsetReader(reader, kept, label_N[kept])


def _end(name: str, edits: Edits, numbers: dict[str, int]) -> int:
    """Number of the identity that ``name`` becomes after all merges; -1 if it is dropped."""
    seen = [name]
    while (into := edits.identities.get(seen[-1], "")) != "":
        if into is None:
            return _DROPPED
        if into in seen:
            raise ValueError(f"the edit lists merge '{into}' into itself ({' -> '.join([*seen, into])})")
        seen.append(into)
    return numbers[seen[-1]]


def _check_known(what: str, unknown: Sequence[str]) -> None:
    if unknown:
        plural = {"identity": "identities", "image": "images"}[what]
        raise ValueError(
            f"the edit lists name {len(unknown):,} {plural} that the data does not have, such as"
            f" '{unknown[0]}'; names are those of facescale inspect, for joined sources behind the source's"
        )
