"""Softmax as a plain program computes it: what heads are measured against.

All logits of a batch are kept, the matrix of class centres has a gradient of its own size, and torch's SGD
moves every row. Data parallel trainings hold it whole on every GPU, model parallel ones a part of its rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.distributed import Dist
from facescale.heads import Bytes, Needs
from facescale.heads.base import HeadOutput

# V views, B batch, C classes, D embedding size

DENSE = "dense"  # its name where a head is named

_SCALE, _MARGIN = 64.0, 0.4
_MATRICES = 8  # of C x D: centres, momentum, unit rows, and what the gradient of the norms holds at once
_LOGITS = 5  # of B x C: cosines, margins, scaled logits, their log-softmax, its gradient


class DenseSoftmax:
    """CosFace over one matrix, with the methods of a head that a measurement calls."""

    needs = Needs()

    def __init__(self, num_ids: int, embedding_size: int, dist: Dist) -> None:
        self.num_ids, self.embedding_size, self.dist = num_ids, embedding_size, dist
        self.weight_CD = nn.Parameter(
            torch.empty(num_ids, embedding_size, device=dist.device).normal_(0, 0.01)
        )
        self._optimizer = torch.optim.SGD([self.weight_CD], lr=0.1, momentum=0.9, weight_decay=5e-4)

    def __call__(self, q_VBD: Tensor, id_B: Tensor, k_VBD: Tensor | None = None) -> HeadOutput:
        """Loss of a batch."""
        return HeadOutput(self.loss(q_VBD[0], id_B.to(self.dist.device)))

    def loss(self, embedding_BD: Tensor, id_B: Tensor) -> Tensor:
        """Mean cross-entropy."""
        cos_BC = F.normalize(embedding_BD) @ F.normalize(self.weight_CD).T
        margin_BC = torch.zeros_like(cos_BC).scatter_(1, id_B[:, None], _MARGIN)
        return F.cross_entropy(_SCALE * (cos_BC - margin_BC), id_B)

    def fill(self) -> None:
        """Nothing is empty at first."""

    def is_finite(self) -> bool:
        """A plain program does not ask."""
        return True

    def finish_step(self, lr: float) -> None:
        """Move all rows."""
        self._optimizer.param_groups[0]["lr"] = lr
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def dense_bytes(num_ids: int, embedding_size: int, batch_size: int) -> Bytes:
    """Memory that ``DenseSoftmax`` needs."""
    matrix, logits = 4 * num_ids * embedding_size, 4 * num_ids * batch_size
    return Bytes(device=2 * matrix, transient=(_MATRICES - 2) * matrix + _LOGITS * logits)
