"""What readers share whose images carry a number as their label."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.info_file import read_info
from facescale.data.readers.labels_file import original_names


class Labelled:
    """Identities of a set whose images carry labels; they are numbered in ascending order of these.

    Args:
        folder: where the set lies, with the labels.json and dataset.json of a converted one.
        label_N: label of each image.

    Attributes:
        ids: int64 (N,), identity of each image.
        info: licence, source and the like.
    """

    def __init__(self, folder: Path, label_N: IntArray) -> None:
        self._folder = folder
        self._labels, self.ids = np.unique(label_N, return_inverse=True)
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
