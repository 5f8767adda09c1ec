"""First values of class-centre rows, as a function of seed and row."""

import numpy as np
import torch
from torch import Tensor

from facescale.kernels import DIGIT_BITS

_POOL = 1 << DIGIT_BITS  # rows drawn from a generator; all others are made of them by signs


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
