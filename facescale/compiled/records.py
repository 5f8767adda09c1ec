"""Records of class centres in and out of their file; importing this needs numba and a POSIX system."""

from typing import Any

import numba
import numpy as np
from numba.core import types
from numpy.typing import NDArray

# R rows, X bytes of a record, P rows of the pool, M of the masks, D embedding size

_DIGIT = 12  # bits of a row's number that choose a row of the pool, or a mask

_SIGNATURE = types.int64(types.int32, types.uintp, types.uint64, types.int64)
_pread: Any = types.ExternalFunction("pread", _SIGNATURE)
_pwrite: Any = types.ExternalFunction("pwrite", _SIGNATURE)


@numba.njit(nogil=True, cache=True)
def read(
    file: int, row_R: NDArray[np.int64], place_R: NDArray[np.int64], record_RX: NDArray[np.uint8]
) -> int:
    """Record of each row to its place in ``record_RX``.

    Returns:
        How many were read before one that the system did not give whole.
    """
    size = record_RX.shape[1]
    start = record_RX.ctypes.data
    for r in range(len(row_R)):
        if _pread(file, start + place_R[r] * size, size, row_R[r] * size) != size:
            return r
    return len(row_R)


@numba.njit(nogil=True, cache=True)
def write(file: int, row_R: NDArray[np.int64], record_RX: NDArray[np.uint8]) -> int:
    """First records of ``record_RX`` to these rows; see ``read``."""
    size = record_RX.shape[1]
    start = record_RX.ctypes.data
    for r in range(len(row_R)):
        if _pwrite(file, start + r * size, size, row_R[r] * size) != size:
            return r
    return len(row_R)


@numba.njit(nogil=True, cache=True)
def begin(
    row_R: NDArray[np.int64],
    place_R: NDArray[np.int64],
    pool_PD: NDArray[np.int32],
    masks_MD: NDArray[np.int32],
    num_masks: int,
    record_RX: NDArray[np.uint8],
) -> None:
    """First record of each row: float32 values of ``InitialRows`` (their bits), everything else 0."""
    word_RW = record_RX.view(np.int32)
    for r in range(len(row_R)):
        digits, word_W = row_R[r], word_RW[place_R[r]]
        value_D = pool_PD[digits & ((1 << _DIGIT) - 1)]
        dim = len(value_D)
        word_W[:dim] = value_D
        word_W[dim:] = 0
        for number in range(num_masks):
            digits >>= _DIGIT
            mask_D = masks_MD[(digits & ((1 << _DIGIT) - 1)) + (number << _DIGIT)]
            for d in range(dim):
                word_W[d] ^= mask_D[d]
