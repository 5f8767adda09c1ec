"""SGD on rows in CPU memory in one pass over them, where numba is installed (facescale[fast])."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from facescale.centres.layout import Rows, numbers
from facescale.centres.row_optim import RowSGD
from facescale.kernels.parts import in_parts

# N rows, R rows that move, D embedding size


class FusedSGD:
    """m <- momentum m + g + decay w, w <- w - lr m, for some rows, where they are.

    With torch's operators this takes two gathers, four passes over the gathered rows and two scatters; on a
    CPU that is half of a Partial FC step. The results differ by roundings (products and sums are fused).

    Args:
        rule: momentum and decay.
    """

    def __init__(self, rule: RowSGD) -> None:
        from facescale.kernels import rows

        self._kernels = rows
        self._factors = np.float32(rule.coupled_decay), np.float32(rule.momentum)

    def step(self, fields: Mapping[str, Tensor], rows: Rows, grad_RD: Tensor, lr: float) -> None:
        """Move rows; each thread of torch takes a part of them.

        Args:
            fields: "rows" and "momentum", float32 (N, D) in CPU memory.
            rows: distinct ones.
            grad_RD: float32 or bfloat16; of each row g is the part across w, for a loss of unit rows.
            lr: rate.
        """
        w_ND, m_ND = fields["rows"].numpy(), fields["momentum"].numpy()
        half = grad_RD.dtype is torch.bfloat16
        kernel = self._kernels.move_half if half else self._kernels.move
        grad = grad_RD.view(torch.uint16).numpy() if half else grad_RD.numpy()
        row = numbers(rows)

        def run(start: int, stop: int) -> None:
            part = slice(start, stop)
            kernel(w_ND, m_ND, row[part], grad[part], *self._factors, np.float32(lr))

        in_parts(run, len(row))
