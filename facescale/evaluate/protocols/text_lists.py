"""Text lists of pairs in the forms that protocols are released in: LFW, CALFW, CPLFW, SLLFW, AgeDB."""

from pathlib import Path

import numpy as np

from facescale.evaluate.protocols.file_images import file_pairs, locate, without_suffix
from facescale.evaluate.protocols.pair_lists import read_lfw, read_rows
from facescale.evaluate.protocols.pairs import Pairs


def read_txt(list_file: Path, root: Path | None = None) -> Pairs:
    """Read a text list of one of the forms that protocols are released in, told apart by its first lines.

    ==========================  =========================================================================
    LFW                         ``10 300``, then ``NAME 1 2`` and ``NAME 1 OTHER 2`` (see `read_lfw`)
    CALFW, CPLFW                two lines a pair, ``NAME_0001.jpg 1``; 0 is an impostor pair
    SLLFW                       two lines a pair, ``NAME/NAME_0001.jpg``; one folder is one person
    others (AgeDB-30 as text)   ``A.jpg B.jpg 1``; 0 or -1 is an impostor pair
    ==========================  =========================================================================

    Args:
        list_file: the list.
        root: folder of the images; by default that of the list, or a usual one in it.

    Raises:
        ValueError: a line of another form, images that are missing.
    """
    rows = read_rows(list_file)
    form = _form(rows[0])
    if form == "LFW":
        return read_lfw(list_file, root)
    if form == "ONE LINE":
        wrong = [place for place, row in enumerate(rows) if _form(row) != form]
        pairs = [(a, b, int(label) > 0) for a, b, label in ([] if wrong else rows)]
    else:
        if len(rows) % 2:
            raise ValueError(f"{list_file}: {len(rows)} lines, where every two lines are a pair")
        wrong = [place // 2 for place, row in enumerate(rows) if _form(row) != form]
        both = [] if wrong else list(zip(rows[0::2], rows[1::2], strict=True))
        signs = [{_sign(row) for row in pair} for pair in both] if form == "LABELLED" else []
        wrong += [number for number, sign in enumerate(signs) if len(sign) > 1]
        same = [True in sign for sign in signs] or [_folder(a[0]) == _folder(b[0]) for a, b in both]
        pairs = [(a[0], b[0], is_same) for (a, b), is_same in zip(both, same, strict=True)]
    if wrong:
        raise ValueError(
            f"{list_file}: pair {wrong[0] + 1} is of another form than the first, or its two lines have two "
            "labels; see 'facescale list evaluators' for the forms"
        )
    stems = [without_suffix(name) for a, b, _ in pairs for name in (a, b)]
    root, pictures = locate(list_file.parent if root is None else root, stems[0])
    is_same = np.array([same for *_, same in pairs], dtype=bool)
    return file_pairs(list_file, root, [pictures.path_of(stem) for stem in stems], is_same, None)


def _form(row: list[str]) -> str:
    """How a line is written: LFW, LABELLED (CALFW, CPLFW), NAMED (SLLFW) or ONE LINE for a pair."""
    *names, last = row
    is_number = last.removeprefix("-").isdecimal()
    if len(row) == 1 and "/" in last:
        return "NAMED"
    if len(row) == 2 and is_number and not names[0].isdecimal():
        return "LABELLED"
    if len(row) == 3 and is_number and not names[1].isdecimal():
        return "ONE LINE"
    return "LFW"


def _sign(row: list[str]) -> bool:
    return int(row[1]) > 0


def _folder(name: str) -> str:
    return name.rpartition("/")[0]
