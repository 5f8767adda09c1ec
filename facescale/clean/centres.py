"""Robust centres of identities, and the cosine of each image to the centre of the others.

N images, C identities, D embedding size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.rows import unit_rows

_LEFT_OUT = 0.25  # of the images of an identity, the farthest
_ROUNDS = 4

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Centres:
    """Where identities are.

    Attributes:
        unit_CD: float32, unit centres.
        own_N: cosine of each image to the centre of its identity without it.
    """

    unit_CD: Floats
    own_N: FloatArray


def robust_centres(unit_ND: Floats, ids: IntArray) -> Centres:
    """Trimmed means: the quarter of the images of an identity that is farthest from its mean is left out.

    Args:
        unit_ND: unit rows.
        ids: (N,), 0 to C - 1, each with an image.
    """
    counts = np.bincount(ids)
    order = np.argsort(ids, kind="stable")
    start_C = np.cumsum(counts) - counts
    used_N = np.ones(len(ids), bool)
    own_N: FloatArray = np.zeros(len(ids))
    for _ in range(_ROUNDS):
        sum_CD = np.zeros((len(counts), unit_ND.shape[1]))
        np.add.at(sum_CD, ids[used_N], unit_ND[used_N])
        own_N = _to_the_others(unit_ND, ids, used_N, sum_CD)
        order = np.lexsort((own_N, ids))
        rank_N = np.empty(len(ids), np.int64)
        rank_N[order] = np.arange(len(ids)) - np.repeat(start_C, counts)
        used_N = rank_N >= np.floor(counts[ids] * _LEFT_OUT)
    return Centres(unit_rows(sum_CD).astype(np.float32), own_N)


def _to_the_others(unit_ND: Floats, ids: IntArray, used_N: BoolArray, sum_CD: FloatArray) -> FloatArray:
    """Cosine of each image with the sum of the others that are used."""
    own_N = np.empty(len(ids))
    for start in range(0, len(ids), 1 << 16):
        part = slice(start, start + (1 << 16))
        others = sum_CD[ids[part]] - unit_ND[part] * used_N[part, None]
        length = np.linalg.norm(others, axis=1)
        own_N[part] = (others * unit_ND[part]).sum(axis=1) / np.maximum(length, 1e-9)
    return own_N
