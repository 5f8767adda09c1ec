"""Read pair lists that name image files (LFW's pairs.txt, CSV), and write CSV."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facescale.arrays import BoolArray, IntArray
from facescale.data.readers.folder import read_file
from facescale.data.readers.pictures import is_picture
from facescale.evaluate.protocols.pairs import Pairs, stratified_folds
from facescale.files import replacing
from facescale.guard.limits import LIST_BYTES
from facescale.guard.reading import read_text, reading
from facescale.guard.shown import csv_cell, from_csv_cell

_TRUTH = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


class FileImages:
    """Image files below one folder.

    Raises:
        ValueError: a path leaves the folder (by ``..``, from the root of the disk or through a link), or a
            file is missing.
    """

    def __init__(self, root: Path, paths: Sequence[str], source: str) -> None:
        self._root, self._paths = root, paths
        real_root = os.path.realpath(root)
        missing = []
        for path in paths:
            real = os.path.realpath(root / path)
            if os.path.commonpath([real_root, real]) != real_root:
                raise ValueError(
                    f"{source}: '{path}' is outside '{root}'; name images by their path below that folder"
                )
            if not os.path.isfile(real):
                missing.append(path)
        if missing:
            raise ValueError(
                f"{source}: {len(missing)} of {len(paths)} images are not in '{root}', the first is "
                f"'{missing[0]}'; complete the folder, or name another one: PATH?root=FOLDER"
            )

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> bytes:
        return read_file(self._root / self._paths[index])

    def key(self, index: int) -> str:
        """Path of image ``index`` below the folder."""
        return self._paths[index]


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
    lines = [line.rstrip("\r") for line in _text(list_file).split("\n") if line.strip()]
    rows = [line.split("\t") if "\t" in line else line.split() for line in lines]
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
    root, pictures = _locate(list_file.parent if root is None else root, names[0])
    return _file_pairs(list_file, root, [pictures.path_of(name) for name in names], is_same, fold)


def read_csv(list_file: Path, root: Path | None = None) -> Pairs:
    """Read a CSV with the columns a, b (paths below ``root``), same (1/0, true/false, yes/no), maybe fold.

    Args:
        list_file: the list; its first line names the columns.
        root: folder of the images; by default that of the list.

    Raises:
        ValueError: a column or value is missing or of another form, images are missing or not below ``root``.
    """
    # As one text: a quoted name may hold line ends. Blanks after a comma belong to a quoted name only.
    text = io.StringIO(_text(list_file), newline="")
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
    return _file_pairs(list_file, root or list_file.parent, paths, is_same, fold)


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


def _text(path: Path) -> str:
    """The text of a list; bytes that are not UTF-8 stand for themselves, as in names of files."""
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


class _Pictures:
    """Picture files below a folder, found by their names without suffix."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stems: dict[str, dict[str, str]] = {}  # folder -> name without suffix -> file

    def path_of(self, name: str) -> str:
        """Path of the picture ``FOLDER/NAME``, whatever its suffix; the name itself where there is none."""
        folder, _, stem = name.rpartition("/")
        return self._in(folder).get(stem, name)

    def __contains__(self, name: str) -> bool:
        folder, _, stem = name.rpartition("/")
        return stem in self._in(folder)

    def _in(self, folder: str) -> dict[str, str]:
        if folder not in self._stems:
            place = self._root / folder
            inside = not folder.startswith("/") and ".." not in folder.split(
                "/"
            )  # else `FileImages` refuses it
            files = sorted(os.listdir(place), reverse=True) if inside and place.is_dir() else []
            stems: dict[str, str] = {}
            for file in files:  # of two suffixes, the first in the order of names
                if is_picture(place / file):
                    stems[os.path.splitext(file)[0]] = f"{folder}/{file}"
            self._stems[folder] = stems
        return self._stems[folder]


def _locate(folder: Path, name: str) -> tuple[Path, _Pictures]:
    """The folder in which a picture of this name is, and the pictures below it."""
    for root in (folder, folder / "images", folder / "lfw"):
        pictures = _Pictures(root)
        if name in pictures:
            return root, pictures
    raise ValueError(
        f"no image '{name}' of any suffix in '{folder}', nor in its images or lfw folder; "
        "say where the images are: PATH?root=FOLDER"
    )


def _file_pairs(
    list_file: Path, root: Path, paths: list[str], is_same: BoolArray, fold: IntArray | None
) -> Pairs:
    """Pairs from paths in pair order (a, b, a, b, ...), each different one listed once."""
    number = {path: index for index, path in enumerate(dict.fromkeys(paths))}
    index = np.array([number[path] for path in paths], dtype=np.int64)
    return Pairs(
        source=str(list_file),
        images=FileImages(root, list(number), str(list_file)),
        a=index[0::2],
        b=index[1::2],
        is_same=is_same,
        fold=stratified_folds(is_same) if fold is None else fold.astype(np.int64),
    )
