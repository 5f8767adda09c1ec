"""Moving rows of class centres; importing this needs numba."""

import numpy as np
from numpy.typing import NDArray

from facescale.kernels.compiled import compiled

# N rows of the store, R rows that move, D embedding size

_BITS = np.uint32(16)
_TINY = np.float32(1e-24)  # least squared length that is divided by
_0 = np.float32(0)


@compiled(fastmath={"contract", "reassoc"})
def move(
    w_ND: NDArray[np.float32],
    m_ND: NDArray[np.float32],
    row_R: NDArray[np.int64],
    grad_RD: NDArray[np.float32],
    decay: np.float32,
    momentum: np.float32,
    lr: np.float32,
) -> None:
    """In place for every row: m <- momentum m + g + decay w, w <- w - lr m, g the part of grad across w."""
    for r in range(len(row_R)):
        w, m, grad = w_ND[row_R[r]], m_ND[row_R[r]], grad_RD[r]
        along, square = _0, _0
        for d in range(w.shape[0]):
            along += grad[d] * w[d]
            square += w[d] * w[d]
        radial = decay - along / max(square, _TINY)
        for d in range(w.shape[0]):
            m[d] = momentum * m[d] + grad[d] + radial * w[d]
            w[d] -= lr * m[d]


@compiled(fastmath={"contract", "reassoc"})
def move_half(
    w_ND: NDArray[np.float32],
    m_ND: NDArray[np.float32],
    row_R: NDArray[np.int64],
    grad_RD: NDArray[np.uint16],
    decay: np.float32,
    momentum: np.float32,
    lr: np.float32,
) -> None:
    """The same with a gradient in bfloat16, given as its bits."""
    for r in range(len(row_R)):
        w, m, grad = w_ND[row_R[r]], m_ND[row_R[r]], grad_RD[r]
        along, square = _0, _0
        for d in range(w.shape[0]):
            along += np.uint32(np.uint32(grad[d]) << _BITS).view(np.float32) * w[d]
            square += w[d] * w[d]
        radial = decay - along / max(square, _TINY)
        for d in range(w.shape[0]):
            wide = np.uint32(np.uint32(grad[d]) << _BITS).view(np.float32)
            m[d] = momentum * m[d] + wide + radial * w[d]
            w[d] -= lr * m[d]
