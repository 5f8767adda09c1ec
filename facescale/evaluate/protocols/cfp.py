"""CFP, frontal against frontal (FF) and against profile (FP), by its ten split files.

Sengupta et al., "Frontal to Profile Face Verification in the Wild", WACV 2016. ``Protocol/Pair_list_F.txt``
and ``Pair_list_P.txt`` number the images ("1 ../Data/Images/001/frontal/01.jpg");
``Protocol/Split/FP/01/same.txt`` and ``diff.txt`` hold pairs of numbers ("1,4"), a frontal one first.
"""

from pathlib import Path

import numpy as np

from facescale.evaluate.protocols.file_images import Pictures, file_pairs, without_suffix
from facescale.evaluate.protocols.pair_lists import read_rows
from facescale.evaluate.protocols.pairs import Pairs

SPLITS = ("FF", "FP")


def read_cfp(folder: Path, split: str, root: Path | None = None) -> Pairs:
    """Read the pairs of all folds.

    Args:
        folder: with ``Protocol/``, and ``Data/`` unless ``root`` is given.
        split: one of `SPLITS`.
        root: folder that holds the images as ``001/frontal/01.jpg``, for aligned copies.

    Raises:
        ValueError: a list is missing or damaged, or images are missing.
    """
    protocol = folder / "Protocol"
    frontal = _numbered(protocol / "Pair_list_F.txt")
    second = frontal if split == "FF" else _numbered(protocol / "Pair_list_P.txt")
    names, is_same, fold = [], [], []
    folds = sorted(path for path in (protocol / "Split" / split).glob("*") if path.is_dir())
    if not folds:
        raise ValueError(f"'{protocol}' has no folder Split/{split}/01; name the folder that holds Protocol/")
    for number, place in enumerate(folds):
        for file, same in (("same.txt", True), ("diff.txt", False)):
            for row in read_rows(place / file):
                a, _, b = "".join(row).partition(",")
                if a not in frontal or b not in second:
                    raise ValueError(
                        f"{place / file}: '{' '.join(row)}' is not a pair of numbers of the image lists"
                    )
                names += [frontal[a], second[b]]
                is_same.append(same)
                fold.append(number)
    images = folder / "Data" / "Images" if root is None else root
    pictures = Pictures(images)
    paths = [pictures.path_of(without_suffix(name)) for name in names]
    return file_pairs(protocol, images, paths, np.array(is_same), np.array(fold, np.int64))


def _numbered(path: Path) -> dict[str, str]:
    """Path below ``Data/Images`` of each numbered image."""
    rows = read_rows(path)
    if any(len(row) != 2 or "Images/" not in row[1] for row in rows):
        raise ValueError(f"{path}: a line is not of the form '1 ../Data/Images/001/frontal/01.jpg'")
    return {number: name.partition("Images/")[2] for number, name in rows}
