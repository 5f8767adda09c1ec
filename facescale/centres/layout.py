"""Where class-centre rows live in memory, and what a row holds before it is first trained."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# N rows of this process, R rows read at once, D embedding size

BLOCK = 2048  # rows handled at once where all are; small, as what is freed is not always given back

Rows = slice | Tensor
"""Which local rows: a slice, or int64 numbers without repetition (ascending is fastest)."""


@dataclass(frozen=True)
class RowField:
    """One thing that is kept for every row.

    Attributes:
        name: "rows", or what the optimizer calls it.
        width: values per row.
        dtype: as stored.
    """

    name: str
    width: int
    dtype: torch.dtype

    @property
    def bytes(self) -> int:
        """Bytes per row."""
        return self.width * self.dtype.itemsize


def count(rows: Rows) -> int:
    """Number of rows in a selection."""
    return rows.stop - rows.start if isinstance(rows, slice) else len(rows)


def numbers(rows: Rows) -> np.ndarray:
    """Selected rows, int64."""
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows.numpy()
