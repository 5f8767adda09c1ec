"""Rows of embeddings: scaled to length 1, checked for NaN and infinity. N rows, D embedding width."""

import numpy as np

from facescale.arrays import FloatArray


def unit_rows(x_ND: FloatArray) -> FloatArray:
    """Rows scaled to length 1, in float64; a zero row stays zero."""
    x_ND = np.asarray(x_ND, dtype=np.float64)
    norm_N1 = np.linalg.norm(x_ND, axis=1, keepdims=True)
    unit_ND: FloatArray = x_ND / np.where(norm_N1 == 0, 1.0, norm_N1)
    return unit_ND


def require_finite(values: FloatArray, what: str) -> None:
    """Refuse ``values`` (N,) or (N, D) with an entry that is not finite.

    Raises:
        ValueError: how many of the N are not, as ``what`` they are called.
    """
    rows = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    if len(rows):
        raise ValueError(
            f"{len(rows)} of {len(values)} {what} contain NaN or infinity: the network has diverged; "
            "use an earlier checkpoint or lower the learning rate"
        )
