"""What readers share whose images carry a number as their label."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.info_file import read_info
from facescale.data.readers.labels_file import original_names

_BLOCK = 1 << 18  # labels numbered together
_SPARSE = 1 << 6  # labels may be so much larger than they are many


class Labelled:
    """Identities of a set whose images carry labels; they are numbered in ascending order of these.

    Args:
        folder: where the set lies, with the labels.json and dataset.json of a converted one.
        labels: those that occur, ascending.
        ids: number of each image's label among them.

    Attributes:
        ids: int64 (N,), identity of each image.
        info: licence, source and the like.
    """

    def __init__(self, folder: Path, labels: IntArray, ids: IntArray) -> None:
        self._folder = folder
        self._labels, self.ids = labels, ids
        self.info = read_info(folder)

    @property
    def num_ids(self) -> int:
        """Number of identities that have images."""
        return len(self._labels)

    @property
    def names(self) -> Sequence[str]:
        """Label that the set gives each identity."""
        return [str(label) for label in self._labels.tolist()]

    @property
    def original_names(self) -> Sequence[str]:
        """Names of the identities: those that labels.json keeps, else their labels."""
        return original_names(self._folder, self.names)

    def __len__(self) -> int:
        return len(self.ids)


def numbered(label_N: IntArray) -> tuple[IntArray, IntArray]:
    """The labels that occur, ascending, and the number of each label among them; ``label_N`` is written over.

    Without sorting where labels are not much larger than they are many: ten million take a tenth of the time
    and of the memory.
    """
    if int(label_N.max()) > _SPARSE * len(label_N) + _SPARSE:
        labels, ids = np.unique(label_N, return_inverse=True)
        return labels, ids
    occurs = np.zeros(int(label_N.max()) + 1, bool)
    occurs[label_N] = True
    known = np.flatnonzero(occurs)
    if len(known) < len(occurs):
        rank = (np.cumsum(occurs, dtype=np.int32) - 1).astype(np.int32)
        for start in range(0, len(label_N), _BLOCK):
            label_N[start : start + _BLOCK] = rank[label_N[start : start + _BLOCK]]
    return known, label_N


def whole_label(text: str, where: str) -> int:
    """A label as a whole number; lists of im2rec have it as a float.

    Raises:
        ValueError: it is none, or does not fit 64 bits.
    """
    try:
        number = float(text) if not text.isdecimal() else int(text)
        if not (number == int(number) and 0 <= number < 2**63):
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError(f"{where} has the label '{text[:80]}'; a label is a whole number from 0") from None
    return int(number)
