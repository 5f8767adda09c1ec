"""Exact search in blocks: the nearest rows of a large matrix.

Q queries, G rows, D embedding size, K nearest.
"""

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.evaluate.blocks import products

ROWS, COLUMNS = 2048, 8192  # 64 MB of cosines at a time
NOBODY = -2.0  # below every cosine

Floats = npt.NDArray[np.float32]


def nearest(
    query_QD: Floats, row_GD: Floats, top: int, but_Q: IntArray | None = None
) -> tuple[Floats, IntArray]:
    """The ``top`` highest cosines of each query, (Q, K), highest first, and their rows, (Q, K).

    Time is Q times G; memory is one block of cosines beside the arguments and the result. Where there are
    fewer rows, the cosine is ``NOBODY``.

    Args:
        query_QD: unit rows.
        row_GD: unit rows.
        top: how many.
        but_Q: row that is left out for each query.
    """
    best_QK = np.full((len(query_QD), top), NOBODY, np.float32)
    place_QK = np.zeros((len(query_QD), top), np.int64)
    for rows, columns, block in products(query_QD, row_GD, ROWS, COLUMNS):
        cosine_qg = block.astype(np.float32, copy=True)
        if but_Q is not None:
            left_out = but_Q[rows] - columns.start
            here = np.flatnonzero((left_out >= 0) & (left_out < cosine_qg.shape[1]))
            cosine_qg[here, left_out[here]] = NOBODY
        size = min(top, cosine_qg.shape[1])
        part = np.argpartition(-cosine_qg, size - 1, axis=1)[:, :size]
        value = np.concatenate([best_QK[rows], np.take_along_axis(cosine_qg, part, 1)], axis=1)
        place = np.concatenate([place_QK[rows], part + columns.start], axis=1)
        order = np.lexsort((place, -value), axis=1)[:, :top]
        best_QK[rows] = np.take_along_axis(value, order, 1)
        place_QK[rows] = np.take_along_axis(place, order, 1)
    return best_QK, place_QK
