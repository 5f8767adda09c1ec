"""Text lists of images and labels, one a line, in the ways that other projects write them."""

import os
from array import array
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.labelled import whole_label
from facescale.data.readers.texts import Texts
from facescale.guard.reading import check_file

_LONGEST = 1 << 16  # characters of a line


def read_list(path: Path) -> tuple[Texts, IntArray]:
    """Image (a path or a key) and label of each line of a list.

    These lines are understood, where they are separated by tabs; the last one also by a space::

        index <TAB> label [<TAB> further labels] <TAB> image      im2rec
        1 <TAB> image <TAB> label                                 InsightFace
        image <TAB> label                                         PLSC; F2C and WebFace42M with a space

    Raises:
        ValueError: the file cannot be read, or a line is none of these.
    """
    check_file(path, "the list")
    images, labels = Texts(), array("q")
    for number, line in enumerate(_lines(path), 1):
        where = f"line {number} of '{path}'"
        if len(line) > _LONGEST:
            raise ValueError(f"{where} has {len(line):,} characters; this is not a list of images")
        image, label = _parsed(line, where)
        images.add([image])
        labels.append(label)
    if not labels:
        raise ValueError(f"'{path}' names no images; it must have a line for each")
    return images, np.array(labels, np.int64)


def _lines(path: Path) -> Iterator[str]:
    """Lines that are not empty, without what ends them."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
            while line := file.readline(_LONGEST + 2):
                if text := line.strip("\r\n"):
                    yield text
    except OSError as error:
        raise ValueError(f"cannot read the list '{path}': {error.strerror or error}") from None


def _parsed(line: str, where: str) -> tuple[str, int]:
    columns = line.split("\t")
    if len(columns) == 3 and not _is_number(columns[1]) and _is_number(columns[2]):
        image, label = columns[1:]
    elif len(columns) >= 3:
        image, label = columns[-1], columns[1]
    elif len(columns) == 2:
        image, label = columns
    else:
        image, _, label = line.strip(" ").rpartition(" ")
    image = _unescaped(image.strip(" ") if len(columns) == 1 else image)
    if not image:
        raise ValueError(f"{where} is '{line[:80]}'; it must have an image and its label")
    return image, whole_label(label.strip(), where)


def _is_number(text: str) -> bool:
    return text.strip().replace(".", "", 1).isdecimal()


def _unescaped(name: str) -> str:
    r"""A name as `facescale.files.one_line` escaped it; a backslash before anything else stays."""
    if "\\" not in name:
        return name
    parts = name.split(r"\\")
    return "\\".join(part.replace(r"\n", "\n").replace(r"\r", "\r").replace(r"\t", "\t") for part in parts)


def check_inside(images: Texts, path: Path) -> None:
    """Make sure that every image of a list lies below its root.

    Raises:
        ValueError: one does not.
    """
    for index in range(len(images)):
        name = images.raw(index)
        if name.startswith(b"/") or b".." in name or os.name == "nt":
            pure = PurePosixPath(os.fsdecode(name).replace("\\", "/"))
            if pure.is_absolute() or ".." in pure.parts:
                raise ValueError(
                    f"'{path}' names '{pure}', which is not below its root; write paths below one folder and"
                    " name that: LIST?root=FOLDER"
                )
