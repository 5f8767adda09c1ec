"""Softmax as a plain program computes it: what heads are measured against.

All logits of a batch are kept, the matrix of class centres has a gradient of its own size, and torch's SGD
moves every row. Data parallel trainings hold it whole on every GPU, model parallel ones a part of its rows.
"""

from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.distributed import Dist
from facescale.heads import Bytes, ClassHead, Needs
from facescale.heads.base import HeadOutput
from facescale.plan.components import head_skeleton

# V views, B batch, C classes, D embedding size

DENSE = "dense"  # its name where a head is named

_SCALE, _MARGIN = 64.0, 0.4
_UPDATE = 7  # of C x D, in the gradient of the lengths: centres, momentum, unit rows, gradients on the way
_LOSS = 4  # of C x D, while logits are there: centres, momentum, unit rows and their gradient
_LOGITS = 5  # of B x C: cosines, margins, scaled logits, their log-softmax, its gradient


class DenseSoftmax:
    """CosFace over one matrix, with the methods of a head that a measurement calls."""

    needs = Needs()

    def __init__(self, num_ids: int, embedding_size: int, dist: Dist) -> None:
        self.num_ids, self.embedding_size, self.dist = num_ids, embedding_size, dist
        self.weight_CD = nn.Parameter(
            torch.empty(num_ids, embedding_size, device=dist.device).normal_(0, 0.01)
        )

    @cached_property
    def _optimizer(self) -> torch.optim.Optimizer:
        return torch.optim.SGD([self.weight_CD], lr=0.1, momentum=0.9, weight_decay=5e-4)

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

    def bytes_needed(self, batch_size: int) -> Bytes:
        """Memory that a step needs."""
        matrix, logits = 4 * self.num_ids * self.embedding_size, 4 * self.num_ids * batch_size
        peak = max(_UPDATE * matrix, _LOSS * matrix + _LOGITS * logits)
        return Bytes(device=2 * matrix, transient=peak - 2 * matrix)


def measurable_skeleton(
    name: str, num_ids: int, embedding_size: int, margin: str, dist: Dist, **options: Any
) -> ClassHead | DenseSoftmax:
    """Like ``head_skeleton``, for ``dense`` too.

    Raises:
        ValueError: as ``heads.build``.
    """
    if name == DENSE:
        return DenseSoftmax(num_ids, embedding_size, Dist(device=torch.device("meta")))
    return head_skeleton(name, num_ids, embedding_size, margin, dist, **options)
