"""Records of class centres in and out of their file; importing this needs numba and a POSIX system."""

from typing import Any

import numpy as np
from numba.core import types
from numpy.typing import NDArray

from facescale.kernels import DIGIT_BITS
from facescale.kernels.compiled import compiled

# R rows, X bytes of a record, P rows of the pool, M of the masks, D embedding size

_LOW = (1 << DIGIT_BITS) - 1
_MOST_BYTES = 1 << 20  # per call: file systems give larger pieces of memory to larger writes, in less time
_MOST_PARTS = 1024  # that the system takes per call (IOV_MAX)

_SIGNATURE = types.int64(types.int32, types.uintp, types.int32, types.int64)
_preadv: Any = types.ExternalFunction("preadv", _SIGNATURE)
_pwritev: Any = types.ExternalFunction("pwritev", _SIGNATURE)


@compiled()
def move(
    file: int,
    writing: bool,
    number_R: NDArray[np.int64],
    place_R: NDArray[np.int64],
    record_RX: NDArray[np.uint8],
) -> int:
    """Records between a file and places of ``record_RX``; runs of consecutive numbers go together.

    Returns:
        How many were moved before a run that the system did not take or give whole.
    """
    size, start = record_RX.shape[1], record_RX.ctypes.data
    part_P2 = np.empty((_MOST_PARTS, 2), np.uint64)  # address and length
    most, done = max(1, _MOST_BYTES // size), 0
    while done < len(number_R):
        first, parts, end = done, 0, -1
        while (
            done < len(number_R)
            and number_R[done] - number_R[first] == done - first < most
            and (parts < _MOST_PARTS or place_R[done] == end)
        ):
            if place_R[done] != end:
                part_P2[parts, 0], part_P2[parts, 1] = start + place_R[done] * size, 0
                parts += 1
            part_P2[parts - 1, 1] += np.uint64(size)
            end = place_R[done] + 1
            done += 1
        address, offset = part_P2.ctypes.data, number_R[first] * size
        part = (file, address, parts, offset)
        moved = _pwritev(*part) if writing else _preadv(*part)
        if moved != (done - first) * size:
            return first
    return done


@compiled()
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
        from_D = pool_PD[digits & _LOW]
        dim = len(from_D)
        for number in range(num_masks):
            digits >>= DIGIT_BITS
            mask_D = masks_MD[(digits & _LOW) + (number << DIGIT_BITS)]
            for d in range(dim):  # in one pass with the copy
                word_W[d] = from_D[d] ^ mask_D[d]
            from_D = word_W
        if not num_masks:
            word_W[:dim] = from_D
        word_W[dim:] = 0
