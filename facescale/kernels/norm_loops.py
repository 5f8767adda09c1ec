"""Batch norm and PReLU in as few passes over memory as they need; importing this needs numba.

Every loop works on some blocks of rows, so that threads can share the rows, and writes one line of sums for
each block: sums do not depend on the number of threads.
"""

import numpy as np
from numpy.typing import NDArray

from facescale.kernels.compiled import compiled

# R rows (batch, height, width), C channels, K blocks of rows;

Floats = NDArray[np.float32]

_FAST = {"contract"}  # no sums in another order: digits would go


@compiled(fastmath=_FAST)
def block_statistics(
    x_RC: Floats, block: int, first: int, last: int, mean_KC: Floats, spread_KC: Floats
) -> None:
    """Mean of each block, and sum of squared distances from it (the block is still in the cache)."""
    C = mean_KC.shape[1]
    num_rows = len(x_RC)
    for k in range(first, last):
        mean_C, spread_C = mean_KC[k], spread_KC[k]
        start, stop = k * block, min((k + 1) * block, num_rows)
        origin_C = x_RC[start]  # sums of numbers far from 0 would lose digits
        mean_C[:] = 0
        spread_C[:] = 0
        for r in range(start, stop):
            x = x_RC[r]
            for c in range(C):
                mean_C[c] += x[c] - origin_C[c]
        share = np.float32(1 / (stop - start))
        for c in range(C):
            mean_C[c] = origin_C[c] + share * mean_C[c]
        for r in range(start, stop):
            x = x_RC[r]
            for c in range(C):
                distance = x[c] - mean_C[c]
                spread_C[c] += distance * distance


@compiled(fastmath=_FAST)
def normalise(
    x_RC: Floats, gain_C: Floats, bias_C: Floats, slope_C: Floats, start: int, stop: int, y_RC: Floats
) -> None:
    """Write z where z = gain x + bias is positive and slope z elsewhere."""
    C = len(gain_C)
    for r in range(start, stop):
        x, y = x_RC[r], y_RC[r]
        for c in range(C):
            z = x[c] * gain_C[c] + bias_C[c]
            y[c] = z if z > 0 else z * slope_C[c]


@compiled(fastmath=_FAST)
def gradient_sums(
    x_RC: Floats,
    grad_RC: Floats,
    mean_C: Floats,
    gain_C: Floats,
    bias_C: Floats,
    slope_C: Floats,
    block: int,
    first: int,
    last: int,
    sums_K3C: NDArray[np.float32],
) -> None:
    """Of each block: sums of dL/dz, of dL/dz (x - mean), and of dL/dslope, given dL/dy."""
    C = len(gain_C)
    num_rows = len(x_RC)
    for k in range(first, last):
        of_z_C, along_x_C, of_slope_C = sums_K3C[k, 0], sums_K3C[k, 1], sums_K3C[k, 2]
        of_z_C[:] = 0
        along_x_C[:] = 0
        of_slope_C[:] = 0
        for r in range(k * block, min((k + 1) * block, num_rows)):
            x, grad = x_RC[r], grad_RC[r]
            for c in range(C):
                z = x[c] * gain_C[c] + bias_C[c]
                g = grad[c]
                of_z = g if z > 0 else g * slope_C[c]
                of_z_C[c] += of_z
                along_x_C[c] += of_z * (x[c] - mean_C[c])
                of_slope_C[c] += np.float32(0) if z > 0 else g * z


@compiled(fastmath=_FAST)
def input_gradient(
    x_RC: Floats,
    grad_RC: Floats,
    mean_C: Floats,
    gain_C: Floats,
    bias_C: Floats,
    slope_C: Floats,
    along_C: Floats,
    shift_C: Floats,
    start: int,
    stop: int,
    out_RC: Floats,
) -> None:
    """dL/dx = gain dL/dz + along (x - mean) + shift."""
    C = len(gain_C)
    for r in range(start, stop):
        x, grad, out = x_RC[r], grad_RC[r], out_RC[r]
        for c in range(C):
            z = x[c] * gain_C[c] + bias_C[c]
            g = grad[c]
            of_z = g if z > 0 else g * slope_C[c]
            out[c] = gain_C[c] * of_z + along_C[c] * (x[c] - mean_C[c]) + shift_C[c]
