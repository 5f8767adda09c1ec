"""A column of a CSV that says something of each image or each person: a group, or a quality.

The first column names images or people: an image by its path as the protocol spells it, with or without its
suffix; a person by the folder of the images.
"""

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from facescale.arrays import FloatArray
from facescale.evaluate.protocols.file_images import without_suffix
from facescale.guard.limits import LIST_BYTES
from facescale.guard.reading import read_text, reading
from facescale.guard.shown import brief, from_csv_cell
from facescale.registry import nearest


@dataclass(frozen=True)
class Attribute:
    """One column.

    Attributes:
        source: the file.
        column: its heading.
        values: name of an image or of a person -> value, never empty.
    """

    source: str
    column: str
    values: Mapping[str, str] = field(repr=False)

    def of(self, key: str) -> str | None:
        """Value of the image ``key``: its own, else that of its folder; None where the file has neither."""
        folder = key.rpartition("/")[0]
        names = (key, without_suffix(key), folder, folder.rpartition("/")[2])
        return next((self.values[name] for name in names if name and name in self.values), None)

    def numbers(self, key: Callable[[int], str], images: Iterable[int]) -> FloatArray:
        """Value of each image as a number; NaN where there is none.

        Raises:
            ValueError: a value that is not a finite number.
        """
        return np.array([self._number(self.of(key(int(index)))) for index in images], np.float64)

    def _number(self, text: str | None) -> float:
        if text is None:
            return math.nan
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(
                f"column '{self.column}' of '{self.source}' holds {brief(text)}, which is not a finite "
                "number; choose a column of numbers with ?column=NAME"
            )
        return value


def read_attribute(path: Path, column: str | None = None) -> Attribute:
    """Read a column of a CSV with a heading; empty cells are left out.

    Args:
        path: the file; its first column names images or people.
        column: heading of the column; may be left out where there are two columns.

    Raises:
        ValueError: no such column, a choice that is not made, a row without a name or with the name of
            another one and a different value, or a file that cannot be read.
    """
    with reading(path, "the attributes", "save it as a CSV whose first column names images or people"):
        text = read_text(path, "the attributes", LIST_BYTES, "surrogateescape").removeprefix("\ufeff")
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(map(str.strip, row))]
    heads = [cell.strip() for cell in rows[0]] if rows else []
    place = _place(path, heads, column)
    values: dict[str, str] = {}
    for row in rows[1:]:
        name, value = from_csv_cell(row[0].strip()), row[place].strip() if place < len(row) else ""
        if not name:
            raise ValueError(f"'{path}' has a row without a name in its column '{heads[0]}': {brief(row)}")
        if value and values.setdefault(name, value) != value:
            raise ValueError(
                f"'{path}' says {brief(values[name])} and {brief(value)} of {brief(name)} in its column "
                f"'{heads[place]}'; keep one of them"
            )
    if not values:
        raise ValueError(
            f"column '{heads[place]}' of '{path}' is empty; choose another one with ?column=NAME"
        )
    return Attribute(str(path), heads[place], values)


def _place(path: Path, heads: Sequence[str], column: str | None) -> int:
    """Number of the chosen column."""
    if len(heads) < 2:
        raise ValueError(
            f"'{path}' has {len(heads)} column; its first line must name an image or person column and "
            "others, such as image,group"
        )
    if column is None:
        if len(heads) > 2:
            raise ValueError(
                f"'{path}' has several columns; choose one with ?column= of: {', '.join(heads[1:])}"
            )
        return 1
    if column not in heads[1:]:
        raise ValueError(
            f"'{path}' has no column '{column}'{nearest(column, heads[1:])}; choose one of: "
            f"{', '.join(heads[1:])}"
        )
    return heads.index(column, 1)


def named(missing: Sequence[str], most: int = 3) -> str:
    """The first names of a list, for a note."""
    more = ", ..." if len(missing) > most else ""
    return ", ".join(map(brief, missing[:most])) + more
