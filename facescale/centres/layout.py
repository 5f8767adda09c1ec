"""Where class-centre rows live in memory, and what a row holds before it is first trained."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# N rows of this process, R rows read at once, D embedding size

BLOCK = 2048  # rows handled at once where all are; small, as what is freed is not always given back
_POOL = 4096  # rows drawn from a generator; all others are made of them by signs

Rows = slice | Tensor
"""Which local rows: a slice, or int64 numbers without repetition (ascending is fastest)."""


@dataclass(frozen=True)
class Plane:
    """One thing that is kept for every row.

    Attributes:
        name: "rows", or what the optimiser calls it.
        width: values per row.
        dtype: as stored.
        saved: belongs into a checkpoint.
    """

    name: str
    width: int
    dtype: torch.dtype
    saved: bool = True

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


def scatter_(into_NW: Tensor, rows: Tensor, values_RW: Tensor) -> None:
    """In place ``into[rows] <- values``, both contiguous and of one type.

    torch copies value by value; where two or more of them are 8 bytes it copies these.
    """
    if into_NW.shape[1] * into_NW.dtype.itemsize % 8 == 0:
        into_NW, values_RW = into_NW.view(torch.float64), values_RW.view(torch.float64)
    into_NW.index_copy_(0, rows, values_RW)


class InitialRows:
    """Row values at the start, N(0, 0.01): a function of (seed, row) alone, at the cost of a copy.

    A store on disk cannot write all rows before the first step, and no store may depend on the number of
    processes, so row r is computed when it is asked for: row r mod 4096 of a pool of normal rows, with the
    signs flipped by one random mask for each further digit of r in base 4096. Every row is exactly normal;
    any two rows are uncorrelated (independent unless they share the pool row).

    Args:
        dim: D.
        num_rows: rows of all processes together.
        seed: any integer.
    """

    def __init__(self, dim: int, num_rows: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        pool_rows, *mask_rows = _initial_tables(num_rows)
        self._pool = torch.empty(pool_rows, dim).normal_(0, 0.01, generator=generator)
        self._num_masks = len(mask_rows)
        self._masks = torch.empty(sum(mask_rows), dim, dtype=torch.int32)  # all but the last have 4096 rows
        for mask, size in zip(self._masks.split(mask_rows), mask_rows, strict=True):
            bits = torch.randint(0, 2, (size, dim), dtype=torch.int32, generator=generator)
            mask.copy_(bits.mul_(-(2**31)))

    @property
    def tables(self) -> tuple[np.ndarray, np.ndarray, int]:
        """Pool, masks and how many these are, as bits of float32, for ``kernels.records.begin``."""
        return self._pool.view(torch.int32).numpy(), self._masks.numpy(), self._num_masks

    def __call__(self, row_R: Tensor) -> Tensor:
        """Values (R, D), float32, of global rows."""
        out = self._pool[row_R % _POOL]
        bits = out.view(torch.int32)
        for number in range(self._num_masks):
            row_R = row_R // _POOL
            bits.bitwise_xor_(self._masks[row_R % _POOL + number * _POOL])
        return out


def initial_bytes(dim: int, num_rows: int) -> int:
    """Memory of ``InitialRows`` (its pool and masks)."""
    return 4 * dim * sum(_initial_tables(num_rows))


def _initial_tables(num_rows: int) -> list[int]:
    """Rows of the pool and of one mask for each further digit of a row's number."""
    sizes, rest = [min(_POOL, num_rows)], (num_rows - 1) // _POOL
    while rest > 0:
        sizes.append(min(_POOL, rest + 1))
        rest //= _POOL
    return sizes


class MemoryRows:
    """Rows in device or host memory, one tensor per plane.

    Args:
        num_rows: N.
        planes: what is kept per row.
        device: where the rows are.
        pinned: page-locked host memory, for copies to a GPU.
    """

    def __init__(
        self, num_rows: int, planes: Sequence[Plane], device: torch.device, pinned: bool = False
    ) -> None:
        self.planes = tuple(planes)
        self.pinned = pinned
        self.tensors = {
            p.name: torch.zeros(num_rows, p.width, dtype=p.dtype, device=device, pin_memory=pinned)
            for p in planes
        }

    def new_buffer(self, num_rows: int) -> dict[str, Tensor]:
        """Tensors for ``num_rows`` rows, as ``read`` and ``write`` take them."""
        return {
            p.name: torch.empty(num_rows, p.width, dtype=p.dtype, pin_memory=self.pinned) for p in self.planes
        }

    def read(self, rows: Rows, buffer: dict[str, Tensor], at: Tensor | None = None) -> None:
        """Copy rows, and no others, into ``buffer``: to its first places, or to the places ``at``."""
        for name, into in buffer.items():
            tensor = self.tensors[name]
            if isinstance(rows, slice):
                into[: count(rows)].copy_(tensor[rows])
            elif at is not None:
                for places, some in zip(at.split(BLOCK), rows.split(BLOCK), strict=True):
                    into.index_copy_(0, places, tensor.index_select(0, some))
            else:
                torch.index_select(tensor, 0, rows, out=into[: len(rows)])

    def write(self, rows: Rows, buffer: dict[str, Tensor]) -> None:
        """Copy the first places of ``buffer`` to rows, and to no others."""
        for name, values in buffer.items():
            if isinstance(rows, slice):
                self.tensors[name][rows] = values[: count(rows)]
            else:
                scatter_(self.tensors[name], rows, values[: len(rows)])
