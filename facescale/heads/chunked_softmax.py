"""A margin loss against one chunk of class centres at a time: value, gradient by embeddings, by rows."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facescale.heads.chunk_logits import Chunk, ChunkLogits, to_rows
from facescale.heads.saved_batch import SavedBatch
from facescale.heads.softmax import NOTHING, is_bounded
from facescale.margins import Margin
from facescale.ops import Scratch

# B batch (of all processes), C classes of a chunk, R its rows (C times the sub-centres), D embedding size


@dataclass(frozen=True)
class Push:
    """A batch after its backward pass, as it acts on rows; the loss scale is divided out.

    Attributes:
        saved: the batch.
        value: gradient of the loss by the value of each sample (B,); (B, D) in ``PlainSoftmax``.
        target: gradient of the loss by the target cosine of each sample (B,); (B, D) in ``PlainSoftmax``.
    """

    saved: SavedBatch
    value: Tensor
    target: Tensor


class ChunkedSoftmax:
    """Value and gradients of a margin loss, chunk by chunk: never more than one chunk of logits exists.

    With l = negatives(cos), p = exp(l - value) for softmax margins and p = 1 for margins that sum, the
    negatives contribute
        value_b           log sum_c exp(l_bc), or sum_c l_bc
        grad_embedding_b  sum_c p_bc l'(cos_bc) w_c / |w_c|, the gradient of value_b by the unit embedding
    and, with a_bc = grad_value_b p_bc l'(cos_bc) or, where c is the target class, grad_target_b, row c
    has as gradient the part of
        sum_b a_bc e_b / |w_c|
    that is orthogonal to w_c, as its length does not matter.
    The row gradients are made from a second evaluation, once backward has set grad_value and grad_target.
    It takes the products with the batch from the first one for rows that the batch has room for.

    Args:
        margin: the margin.
        scratch: buffers.
        products: precision of factors and results of matrix products; everything else is float32.
    """

    def __init__(self, margin: Margin, scratch: Scratch, products: torch.dtype) -> None:
        self.margin, self._scratch, self._products = margin, scratch, products
        self._logits = ChunkLogits(margin, scratch, products)
        self._softmax = margin.reduction == "softmax"
        self._bounded = is_bounded(margin)
        self._absent = -torch.inf if self._softmax else 0.0

    def forward(
        self, saved: SavedBatch, chunks: Iterable[tuple[int, Tensor]], with_grad: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Value and gradient by the embeddings, in one pass over the chunks.

        Args:
            saved: the batch; what is only known later is not used.
            chunks: (position of the first class, rows (R, D) float32) of each.
            with_grad: compute the gradient, too.

        Returns:
            running_max_B, sum_B, grad_embedding_BD; the value is running_max_B + log(sum_B) for softmax,
            whose gradient is still to be divided by sum_B, and sum_B for margins that sum (with maximum 0).
        """
        batch = len(saved.e_BD)
        start = NOTHING if self._softmax and not self._bounded else 0.0
        running_max_B = saved.e_BD.new_full((batch,), start, dtype=torch.float32)
        sum_B = torch.zeros_like(running_max_B)
        grad_embedding_BD = torch.zeros_like(saved.e_BD, dtype=torch.float32)
        for first, w_RD in chunks:
            chunk = self._logits.evaluate(w_RD, len(w_RD), first, saved, recompute=False)
            inverse_R1, out_CB, slope = chunk.inverse_R1, chunk.out_CB, chunk.slope
            if out_CB is None:
                out_CB = self._scratch.take("logits", chunk.level_RB.shape)
                torch.mul(chunk.level_RB, inverse_R1 * self.margin.scale, out=out_CB)
            cells = saved.target_cells(first, len(out_CB))
            if cells:
                out_CB[cells] = self._absent
            if self._softmax and not self._bounded:
                new_max_B = torch.maximum(running_max_B, out_CB.amax(0))
                shrink_B = (running_max_B - new_max_B).exp_()
                sum_B.mul_(shrink_B)
                grad_embedding_BD.mul_(shrink_B[:, None])
                running_max_B = new_max_B
                out_CB.sub_(running_max_B)
            if self._softmax:
                out_CB.exp_()
            ones_C = self._scratch.take("ones", (len(out_CB),)).fill_(1)
            sum_B.addmv_(out_CB.T, ones_C)  # sum(0) takes twice the memory of the chunk on CUDA
            if with_grad:
                if self._softmax and chunk.winner_C1B is None and isinstance(slope, float):
                    weight_RB = out_CB.mul_(inverse_R1 * slope)  # one pass instead of two
                else:
                    weight_CB = out_CB.mul_(slope) if self._softmax else torch.zeros_like(out_CB).add_(slope)
                    if cells and not self._softmax:
                        weight_CB[cells] = 0.0
                    weight_RB = to_rows(weight_CB, chunk).mul_(inverse_R1)
                # faster than addmm_
                assert chunk.factor_RD is not None
                grad_embedding_BD += torch.mm(self._logits.factor("weights", weight_RB).T, chunk.factor_RD)
        return running_max_B, sum_B, grad_embedding_BD

    def pushes(self, batches: Sequence[SavedBatch], loss_scale: float) -> list[Push]:
        """What ``gradient`` takes, made once for all chunks.

        Args:
            batches: those that backward went through since the last step, at least one.
            loss_scale: factor on the loss, to be divided out.
        """
        return [Push(one, one.grad_value_B / loss_scale, one.grad_target_B / loss_scale) for one in batches]

    def row_gradient(
        self,
        w_RD: Tensor,
        first: int,
        pushes: Sequence[Push],
        decay: float,
        into_RD: Tensor | None = None,
        factor: float = 0.0,
    ) -> Tensor:
        """Gradient of the rows of one chunk, plus ``decay`` times the rows.

        Args:
            w_RD: the rows.
            first: position of their first class among the classes that move.
            pushes: of the step.
            decay: weight decay.
            into_RD: to add the gradient to; None is a buffer of this object.
            factor: multiplies what ``into_RD`` holds before.

        Returns:
            ``into_RD``, or the buffer, valid until the next call.
        """
        into_RD = self._scratch.take("wide gradient", w_RD.shape) if into_RD is None else into_RD
        grad_RD = self.gradient(w_RD, len(w_RD), first, pushes)
        if grad_RD.dtype is not into_RD.dtype:  # torch would allocate it
            grad_RD = self._scratch.take("wide gradient", grad_RD.shape).copy_(grad_RD)
        square_R = torch.linalg.vecdot(w_RD, w_RD).clamp_min_(1e-24)
        radial_R = decay - torch.linalg.vecdot(grad_RD, w_RD).div_(square_R)
        if factor:
            torch.add(grad_RD, into_RD, alpha=factor, out=into_RD)
        elif into_RD.data_ptr() != grad_RD.data_ptr():
            into_RD.copy_(grad_RD)
        return into_RD.addcmul_(w_RD, radial_R[:, None])

    def gradient(self, w_RD: Tensor | None, num_rows: int, first: int, pushes: Sequence[Push]) -> Tensor:
        """sum_b a_bc e_b / |w_c|, the part along the row included, for the rows of one chunk.

        Args:
            w_RD: the rows, or None where what all batches need of them was kept.
            num_rows: how many.
            first: see ``row_gradient``.
            pushes: see there.

        Returns:
            (R, D) in the precision of products or float32, valid until the next call.
        """
        grad_RD: Tensor | None = None
        for push in pushes:
            saved = push.saved
            chunk = self._logits.evaluate(w_RD, num_rows, first, saved, recompute=True)
            weight_CB = self._weights(chunk, saved, push.value)
            if saved.member_C is not None:
                weight_CB.mul_(saved.member_C[first : first + len(weight_CB), None])
            if cells := saved.target_cells(first, len(weight_CB)):
                weight_CB[cells] = push.target[cells[1]]
            weight_RB = to_rows(weight_CB, chunk)
            grad_RD = self._product(weight_RB.mul_(chunk.inverse_R1), saved.factor_BD, grad_RD)
        assert grad_RD is not None
        return grad_RD

    def parameter_gradients(
        self, saved: SavedBatch, chunks: Iterable[tuple[int, Tensor]], parameters: Sequence[Tensor]
    ) -> list[Tensor]:
        """Gradients of the loss by learned scalars of the margin that the other classes depend on."""
        totals = [torch.zeros_like(p) for p in parameters]
        for first, w_RD in chunks:
            chunk = self._logits.evaluate(w_RD, len(w_RD), first, saved, recompute=True)
            level_RB = chunk.level_RB * chunk.inverse_R1 if chunk.out_CB is None else chunk.level_RB
            level_CKB = level_RB.view(-1, self.margin.subcentres, len(saved.e_BD))
            with torch.enable_grad():
                out_BC = self.margin.negatives(level_CKB.amax(1).T, saved.target)
            if not out_BC.requires_grad:  # the parameters act elsewhere (UniTSFace's threshold)
                break
            out_CB = out_BC.detach().T
            weight_CB = (out_CB - saved.value_B).exp() if self._softmax else torch.ones_like(out_CB)
            if cells := saved.target_cells(first, len(weight_CB)):
                weight_CB[cells] = 0.0
            weight_BC = weight_CB.T * saved.grad_value_B[:, None]
            grads = torch.autograd.grad(out_BC, parameters, weight_BC, allow_unused=True)
            for total, grad in zip(totals, grads, strict=True):
                if grad is not None:
                    total += grad
        return totals

    def _product(self, weight_RB: Tensor, e_BD: Tensor, before_RD: Tensor | None) -> Tensor:
        """``weight @ e``, in the precision of products; float32 with what was ``before`` added to it."""
        shape = (len(weight_RB), e_BD.shape[1])
        if self._products is torch.float32:
            if before_RD is not None:
                return before_RD.addmm_(weight_RB, e_BD)
            return torch.mm(weight_RB, e_BD, out=self._scratch.take("wide gradient", shape))
        if before_RD is not None:
            before_RD = self._scratch.take("sum of gradients", shape).copy_(before_RD)
        product_RD = self._scratch.take("gradient", shape, self._products)
        torch.mm(self._logits.factor("weights", weight_RB), e_BD, out=product_RD)
        return product_RD if before_RD is None else before_RD.add_(product_RD)

    def _weights(self, chunk: Chunk, saved: SavedBatch, grad_B: Tensor) -> Tensor:
        """Gradient of the loss by the cosines (C, B), wrong in the cells of target classes."""
        if not self._softmax:
            assert isinstance(chunk.slope, Tensor)
            return chunk.slope * grad_B
        weight_CB = self._scratch.take(
            "logits", (chunk.level_RB if chunk.out_CB is None else chunk.out_CB).shape
        )
        if chunk.out_CB is None:
            torch.addcmul(-saved.value_B, chunk.level_RB, chunk.inverse_R1 * self.margin.scale, out=weight_CB)
        else:
            torch.sub(chunk.out_CB, saved.value_B, out=weight_CB)
        weight_CB.exp_()
        if isinstance(chunk.slope, Tensor):
            return weight_CB.mul_(chunk.slope).mul_(grad_B)
        return weight_CB.mul_(grad_B * chunk.slope)
