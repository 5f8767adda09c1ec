"""The product of two large matrices, block by block."""

from collections.abc import Iterator

import numpy as np

from facescale.arrays import FloatArray


def products(
    a_QD: FloatArray, b_GD: FloatArray, most_q: int, most_g: int
) -> Iterator[tuple[slice, slice, FloatArray]]:
    """Yield (rows, columns, ``a[rows] @ b[columns].T``); the array is overwritten by the next block.

    ``b_GD`` is read once, so it may be a file in memory (``numpy.memmap``).
    """
    out = np.empty(most_q * most_g, np.result_type(a_QD, b_GD))
    for first in range(0, len(b_GD), most_g):
        columns = slice(first, min(first + most_g, len(b_GD)))
        b_Dg = np.asarray(b_GD[columns]).T
        for start in range(0, len(a_QD), most_q):
            rows = slice(start, min(start + most_q, len(a_QD)))
            shape = rows.stop - start, columns.stop - first
            block = out[: shape[0] * shape[1]].reshape(shape)
            np.matmul(a_QD[rows], b_Dg, out=block, dtype=out.dtype)
            yield rows, columns, block
