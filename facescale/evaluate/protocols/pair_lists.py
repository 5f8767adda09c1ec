"""Read pair lists that name image files (LFW's pairs.txt, CSV), and write CSV."""

import csv
import io
from pathlib import Path

import numpy as np

from facescale.evaluate.protocols.file_images import file_pairs, locate
from facescale.evaluate.protocols.pairs import Pairs
from facescale.files import replacing
from facescale.guard.limits import LIST_BYTES
from facescale.guard.reading import read_text, reading
from facescale.guard.shown import csv_cell, from_csv_cell

_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def read_rows(list_file: Path) -> list[list[str]]:
    """Words of each line of a list; a tab separates words that may hold blanks.

    Raises:
        ValueError: as `list_text`.
    """
    lines = [line.rstrip("\r") for line in list_text(list_file).split("\n") if line.strip()]
    return [line.split("\t") if "\t" in line else line.split() for line in lines]


def read_lfw(list_file: Path, root: Path | None = None) -> Pairs:
    """Read a list in LFW's format.

    The first line holds the number of folds and of pairs of each kind in a fold (``10 300``), or the latter
    alone. Then come, fold by fold, genuine pairs ``NAME i j`` and impostor pairs ``NAME i OTHER j``, meaning
    files such as NAME/NAME_0001.jpg. Folds that the list does not have are cut by `stratified_folds`.

    Args:
        list_file: the list.
        root: folder with one folder per name; by default that of the list, or ``images`` or ``lfw`` in it.

    Raises:
        ValueError: a line of another form, another number of lines than stated, missing images.
    """
    rows = read_rows(list_file)
    header = rows.pop(0) if len(rows[0]) <= 2 else []
    names = [name for row in rows for name in _lfw_names(list_file, row)]
    is_same = np.array([len(row) == 3 for row in rows], dtype=bool)
    fold = None
    if header:
        if not all(word.isdecimal() and int(word) for word in header):
            raise ValueError(
                f"{list_file}: the first line is '{' '.join(header)}', not numbers such as '10 300'"
            )
        num_folds, of_each = [1, *map(int, header)][-2:]
        if len(rows) != num_folds * 2 * of_each:
            raise ValueError(
                f"{list_file}: the first line announces {num_folds * 2 * of_each} pairs but {len(rows)} "
                "follow; the file is truncated, or its first line is wrong"
            )
        if num_folds > 1:
            fold = np.repeat(np.arange(num_folds), 2 * of_each)
    root, pictures = locate(list_file.parent if root is None else root, names[0])
    return file_pairs(list_file, root, [pictures.path_of(name) for name in names], is_same, fold)


def read_csv(list_file: Path, root: Path | None = None) -> Pairs:
    """Read a CSV with the columns a, b (paths below ``root``), same (1/0, true/false, yes/no), maybe fold.

    Args:
        list_file: the list; its first line names the columns.
        root: folder of the images; by default that of the list.

    Raises:
        ValueError: a column or value is missing or of another form, images are missing or not below ``root``.
    """
    # As one text: a quoted name may hold line ends. Blanks after a comma belong to a quoted name only.
    text = io.StringIO(list_text(list_file), newline="")
    with reading(list_file, "the pair list", "save it as a CSV of the columns a,b,same"):
        lines = csv.DictReader(text, skipinitialspace=True, restval="")
        rows = [row for row in lines if any(isinstance(x, str) and x.strip() for x in row.values())]
    columns = rows[0].keys() if rows else ()
    if not {"a", "b", "same"} <= set(columns):
        raise ValueError(
            f"{list_file}: its columns are '{', '.join(map(str, columns))}'; "
            "the first line must be 'a,b,same' or 'a,b,same,fold', followed by one pair per line"
        )
    for number, row in enumerate(rows, start=1):
        if row["same"].strip().lower() not in _TRUTH or not row["a"] or not row["b"]:
            raise ValueError(
                f"{list_file}: pair {number} reads a='{row['a']}', b='{row['b']}', same='{row['same']}'; "
                f"write two paths, and one of {', '.join(_TRUTH)}"
            )
    is_same = np.array([_TRUTH[row["same"].strip().lower()] for row in rows], dtype=bool)
    fold = np.unique([row["fold"] for row in rows], return_inverse=True)[1] if "fold" in columns else None
    paths = [from_csv_cell(path) for row in rows for path in (row["a"], row["b"])]
    return file_pairs(list_file, root or list_file.parent, paths, is_same, fold)


def write_csv(path: str | Path, pairs: Pairs) -> None:
    """Write ``pairs`` as CSV; images are named by their keys, which for a folder are paths below it."""
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(["a", "b", "same", "fold"])
        for a, b, same, fold in zip(pairs.a, pairs.b, pairs.is_same, pairs.fold, strict=True):
            keys = [csv_cell(pairs.images.key(int(index))) for index in (a, b)]
            writer.writerow([*keys, int(same), int(fold)])


def list_text(path: Path) -> str:
    """The text of a list; bytes that are not UTF-8 stand for themselves, as in names of files.

    Raises:
        ValueError: it cannot be read, is empty, or is not a text.
    """
    text = read_text(path, "the pair list", LIST_BYTES, "surrogateescape")
    if "\0" in text:
        raise ValueError(f"cannot read the pair list '{path}': it holds zero bytes; save it as UTF-8 text")
    if not text.strip():
        raise ValueError(
            f"the pair list '{path}' is empty; use a pairs.txt or a CSV with the columns a,b,same"
        )
    return text


def _lfw_names(list_file: Path, row: list[str]) -> tuple[str, str]:
    """Names of both images of a line, without suffix."""
    name, i, *other, j = row if len(row) in (3, 4) else ["", "", ""]
    if not (name and i.strip().isdecimal() and j.strip().isdecimal()):
        raise ValueError(
            f"{list_file}: cannot read the line '{' '.join(row)}'; a genuine pair is 'NAME 1 2', "
            "an impostor pair 'NAME 1 OTHER 2'"
        )
    second = other[0] if other else name
    return f"{name}/{name}_{int(i):04d}", f"{second}/{second}_{int(j):04d}"
