"""A margin loss against one chunk of class centres at a time: its value, its pull, later row gradients."""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from facescale.margins import Margin, Own
from facescale.ops import Scratch

# B batch (of all processes), C classes of a chunk, R its rows (C times the sub-centres), D embedding size

NOTHING = -1e30  # stands for log 0 where minus infinity would make NaN


@dataclass
class Seen:
    """What a step remembers of a batch: enough to make the gradient of any chunk of rows again.

    Attributes:
        e_BD: unit embeddings, float32.
        factor_BD: these in the precision of products.
        own: what the margin knows of the batch, without gradient.
        column_B: position of the own class among the classes looked at; negative where it is not there.
        value_B: log-sum-exp (or sum, for margins that sum) over the other classes of all processes.
        grad_value_B: gradient of the loss by ``value_B``; known after backward.
        grad_own_B: gradient of the loss by the own cosine; known after backward.
        inverse_N1: room for 1 / |w| of all rows looked at, which are needed twice; None where they are not
            kept.
        product_NB: room for the products of all rows looked at with the batch, where these are few.
        exp_NB: room for exp(l) of all rows looked at, where these are few and l needs no shift.
        member_C: which classes this batch looked at, where rows of several batches move together.
    """

    e_BD: Tensor
    factor_BD: Tensor
    own: Own
    column_B: Tensor
    value_B: Tensor
    grad_value_B: Tensor
    grad_own_B: Tensor
    inverse_N1: Tensor | None = None
    product_NB: Tensor | None = None
    exp_NB: Tensor | None = None
    member_C: Tensor | None = None

    def __post_init__(self) -> None:
        column_B, self._sample_B = self.column_B.cpu().sort()
        self._column_B = column_B.tolist()

    def own_cells(self, first: int, num_classes: int) -> tuple[Tensor, Tensor] | None:
        """Cells (class in the chunk, sample) of own classes in the chunk that starts at ``first``."""
        start, stop = bisect_left(self._column_B, first), bisect_left(self._column_B, first + num_classes)
        if start == stop:
            return None
        sample = self._sample_B[start:stop].to(self.column_B.device)
        return self.column_B[sample] - first, sample


@dataclass
class _Chunk:
    """A chunk under the margin: l = others(cos).

    Attributes:
        factor_RD: the rows in the precision of products, where these were not kept.
        inverse_R1: 1 / |w|.
        level_RB: cosines; products with the unit embeddings where ``out_CB`` is None.
        out_CB: l, or None where it is the cosine times the scale.
        slope: dl / dcos.
        winner_C1B: which sub-centre of a class is nearest, if it has several.
    """

    factor_RD: Tensor | None
    inverse_R1: Tensor
    level_RB: Tensor
    out_CB: Tensor | None
    slope: Tensor | float
    winner_C1B: Tensor | None = None


class Chunked:
    """Evaluates ``margin.others`` on chunks of rows; never more than one chunk of logits exists.

    With l = others(cos), p = exp(l - value) for softmax margins and p = 1 for margins that sum, other classes
    contribute
        value_b       log sum_c exp(l_bc), or sum_c l_bc
        pull_b        sum_c p_bc l'(cos_bc) w_c / |w_c|, the gradient of value_b by the unit embedding
    and, with a_bc = grad_value_b p_bc l'(cos_bc) or, where c is the own class, grad_own_b, row c
    has the gradient
        (sum_b a_bc e_b - (sum_b a_bc cos_bc) w_c / |w_c|) / |w_c|
    The row gradients are made from a second evaluation, after backward has told grad_value and grad_own.

    Args:
        margin: the margin.
        scratch: buffers.
        products: precision of factors and results of matrix products; everything else is float32.
    """

    def __init__(self, margin: Margin, scratch: Scratch, products: torch.dtype) -> None:
        self.margin, self._scratch, self._products = margin, scratch, products
        self._softmax = margin.reduction == "softmax"
        # exp of every logit and the sum of all of them are normal float32 numbers: nothing to subtract first
        self._bounded = margin.plain_others and margin.scale < 64.1
        self._absent = -torch.inf if self._softmax else 0.0

    @property
    def keeps_exp(self) -> bool:
        """Whether ``Seen.exp_NB`` can be used."""
        return self._softmax and self._bounded and self.margin.tally is None

    def look(
        self, seen: Seen, chunks: Iterable[tuple[int, Tensor]], with_pull: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Go over the chunks once.

        Args:
            seen: the batch; what is only known later is not used.
            chunks: (position of the first class, rows (R, D) float32) of each.
            with_pull: compute the pull too.

        Returns:
            top_B, sum_B, pull_BD; the value is top_B + log(sum_B) for softmax, whose pull is still to be
            divided by sum_B, and sum_B for margins that sum (top_B is 0 then).
        """
        batch = len(seen.e_BD)
        start = NOTHING if self._softmax and not self._bounded else 0.0
        top_B = seen.e_BD.new_full((batch,), start, dtype=torch.float32)
        sum_B = torch.zeros_like(top_B)
        pull_BD = torch.zeros_like(seen.e_BD, dtype=torch.float32)
        for first, w_RD in chunks:
            chunk = self._evaluate(w_RD, len(w_RD), first, seen, again=False)
            inverse_R1, out_CB, slope = chunk.inverse_R1, chunk.out_CB, chunk.slope
            if out_CB is None:
                out_CB = self._scratch.take("logits", chunk.level_RB.shape)
                torch.mul(chunk.level_RB, inverse_R1 * self.margin.scale, out=out_CB)
            cells = seen.own_cells(first, len(out_CB))
            if cells:
                out_CB[cells] = self._absent
            if self._softmax and not self._bounded:
                higher_B = torch.maximum(top_B, out_CB.amax(0))
                shrink_B = (top_B - higher_B).exp_()
                sum_B.mul_(shrink_B)
                pull_BD.mul_(shrink_B[:, None])
                top_B = higher_B
                out_CB.sub_(top_B)
            if self._softmax:
                out_CB.exp_()
            if seen.exp_NB is not None:
                seen.exp_NB[first : first + len(out_CB)] = out_CB
            ones_C = self._scratch.take("ones", (len(out_CB),)).fill_(1)
            sum_B.addmv_(out_CB.T, ones_C)  # sum(0) takes twice the memory of the chunk on CUDA
            if with_pull:
                if self._softmax and chunk.winner_C1B is None and isinstance(slope, float):
                    weight_RB = out_CB.mul_(inverse_R1 * slope)  # one pass instead of two
                else:
                    weight_CB = out_CB.mul_(slope) if self._softmax else torch.zeros_like(out_CB).add_(slope)
                    if cells and not self._softmax:
                        weight_CB[cells] = 0.0
                    weight_RB = _to_rows(weight_CB, chunk).mul_(inverse_R1)
                # faster than addmm_
                assert chunk.factor_RD is not None
                pull_BD += torch.mm(self._factor("weights", weight_RB).T, chunk.factor_RD)
        return top_B, sum_B, pull_BD

    def row_gradient(
        self,
        w_RD: Tensor,
        first: int,
        batches: Sequence[Seen],
        decay: float,
        loss_scale: float,
        into_RD: Tensor | None = None,
        factor: float = 0.0,
    ) -> Tensor:
        """Gradient of the rows of one chunk, plus ``decay`` times the rows.

        Args:
            w_RD: the rows.
            first: position of their first class among the classes that move.
            batches: those that backward went through since the last step, at least one.
            decay: weight decay.
            loss_scale: factor on the loss, to be divided out.
            into_RD: to add the gradient to; None is a buffer of this object.
            factor: multiplies what ``into_RD`` holds before.

        Returns:
            ``into_RD``, or the buffer, valid until the next call.
        """
        into_RD = self._scratch.take("wide gradient", w_RD.shape) if into_RD is None else into_RD
        grad_RD, radial_R = self.gradient_parts(w_RD, len(w_RD), first, batches, decay, loss_scale)
        if grad_RD.dtype is not into_RD.dtype:  # torch would allocate it
            grad_RD = self._scratch.take("wide gradient", grad_RD.shape).copy_(grad_RD)
        if factor:
            torch.add(grad_RD, into_RD, alpha=factor, out=into_RD)
        elif into_RD.data_ptr() != grad_RD.data_ptr():
            into_RD.copy_(grad_RD)
        return into_RD.addcmul_(w_RD, radial_R[:, None])

    def gradient_parts(
        self,
        w_RD: Tensor | None,
        num_rows: int,
        first: int,
        batches: Sequence[Seen],
        decay: float,
        loss_scale: float,
    ) -> tuple[Tensor, Tensor]:
        """The gradient of the rows of one chunk as grad + radial * row.

        Args:
            w_RD: the rows, or None where the products with all batches were kept.
            num_rows: how many.
            first: see ``row_gradient``.
            batches: see there.
            decay: see there.
            loss_scale: see there.

        Returns:
            grad (R, D) in the precision of products or float32, and radial (R,), valid until the next call.
        """
        grad_RD: Tensor | None = None
        radial_R = torch.full((num_rows,), decay, device=batches[0].e_BD.device)
        for seen in batches:
            chunk = self._evaluate(w_RD, num_rows, first, seen, again=True)
            inverse_R1, grad_B = chunk.inverse_R1, seen.grad_value_B / loss_scale
            weight_CB = self._weights(chunk, first, seen, grad_B)
            if seen.member_C is not None:
                weight_CB.mul_(seen.member_C[first : first + len(weight_CB), None])
            if cells := seen.own_cells(first, len(weight_CB)):
                weight_CB[cells] = seen.grad_own_B[cells[1]] / loss_scale
            weight_RB = _to_rows(weight_CB, chunk)
            cosine_R1 = inverse_R1 if chunk.out_CB is None else 1.0
            along_R = torch.linalg.vecdot(weight_RB, chunk.level_RB)
            radial_R -= along_R * (cosine_R1 * inverse_R1.square())[:, 0]
            grad_RD = self._product(weight_RB.mul_(inverse_R1), seen.factor_BD, grad_RD)
        assert grad_RD is not None
        return grad_RD, radial_R

    def parameter_gradients(
        self, seen: Seen, chunks: Iterable[tuple[int, Tensor]], parameters: Sequence[Tensor]
    ) -> list[Tensor]:
        """Gradients of the loss by learned scalars of the margin that the other classes depend on."""
        totals = [torch.zeros_like(p) for p in parameters]
        for first, w_RD in chunks:
            chunk = self._evaluate(w_RD, len(w_RD), first, seen, again=True)
            level_RB = chunk.level_RB * chunk.inverse_R1 if chunk.out_CB is None else chunk.level_RB
            level_CKB = level_RB.view(-1, self.margin.subcentres, len(seen.e_BD))
            with torch.enable_grad():
                out_BC = self.margin.others(level_CKB.amax(1).T, seen.own)
            if not out_BC.requires_grad:  # the parameters act elsewhere (UniTSFace's threshold)
                break
            out_CB = out_BC.detach().T
            weight_CB = (out_CB - seen.value_B).exp() if self._softmax else torch.ones_like(out_CB)
            if cells := seen.own_cells(first, len(weight_CB)):
                weight_CB[cells] = 0.0
            weight_BC = weight_CB.T * seen.grad_value_B[:, None]
            grads = torch.autograd.grad(out_BC, parameters, weight_BC, allow_unused=True)
            for total, grad in zip(totals, grads, strict=True):
                if grad is not None:
                    total += grad
        return totals

    def _evaluate(self, w_RD: Tensor | None, num_rows: int, first: int, seen: Seen, again: bool) -> _Chunk:
        """A chunk under the margin; ``again`` takes products and norms from the first time."""
        margin, own = self.margin, seen.own
        start = first * margin.subcentres
        here = slice(start, start + num_rows)
        if seen.inverse_N1 is None:
            inverse_R1 = self._scratch.take("norms", (num_rows, 1))
        else:
            inverse_R1 = seen.inverse_N1[here]
        if w_RD is not None and (seen.inverse_N1 is None or not again):
            torch.linalg.vector_norm(w_RD, dim=1, keepdim=True, out=inverse_R1)
            inverse_R1.clamp_min_(1e-12).reciprocal_()
        factor_RD, product_RB = self._multiplied(w_RD, seen, here, again)
        plain = margin.plain_others and margin.tally is None
        if plain and margin.subcentres == 1:
            return _Chunk(factor_RD, inverse_R1, product_RB, None, margin.scale)
        level_RB = self._scratch.take("level", product_RB.shape)
        torch.mul(product_RB, inverse_R1, out=level_RB)
        cos_CB, winner_C1B = level_RB, None
        if margin.subcentres > 1:
            cos_CB, winner_CB = level_RB.view(-1, margin.subcentres, len(seen.e_BD)).max(1)
            winner_C1B = winner_CB[:, None]
        if plain:
            cos_CB.mul_(margin.scale)
            return _Chunk(factor_RD, inverse_R1, level_RB, cos_CB, margin.scale, winner_C1B)
        if not again:
            margin.observe(cos_CB.T, own)
        with torch.enable_grad():
            leaf_BC = cos_CB.T.detach().requires_grad_()
            out_BC = margin.others(leaf_BC, own)
            (slope_BC,) = torch.autograd.grad(out_BC.sum(), leaf_BC)
        return _Chunk(factor_RD, inverse_R1, level_RB, out_BC.detach().T, slope_BC.T, winner_C1B)

    def _multiplied(
        self, w_RD: Tensor | None, seen: Seen, here: slice, again: bool
    ) -> tuple[Tensor | None, Tensor]:
        """The rows as factors (None where not needed), and their products (R, B) with the batch, float32."""
        if seen.product_NB is None:
            num_rows = here.stop - here.start
            product_RB = self._scratch.take("product", (num_rows, len(seen.e_BD)), self._products)
        else:
            product_RB = seen.product_NB[here]
        factor_RD = None
        if not again or seen.product_NB is None:
            assert w_RD is not None
            factor_RD = self._factor("rows", w_RD)
            torch.mm(factor_RD, seen.factor_BD.T, out=product_RB)
        if self._products is torch.float32:
            return factor_RD, product_RB
        return factor_RD, self._scratch.take("product", product_RB.shape).copy_(product_RB)

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
        torch.mm(self._factor("weights", weight_RB), e_BD, out=product_RD)
        return product_RD if before_RD is None else before_RD.add_(product_RD)

    def _factor(self, name: str, x: Tensor) -> Tensor:
        """``x`` as a factor of a product."""
        if x.dtype is self._products:
            return x
        return self._scratch.take(f"{name} to multiply", x.shape, self._products).copy_(x)

    def _weights(self, chunk: _Chunk, first: int, seen: Seen, grad_B: Tensor) -> Tensor:
        """Gradient of the loss by the cosines (C, B), wrong in the cells of own classes."""
        if not self._softmax:
            assert isinstance(chunk.slope, Tensor)
            return chunk.slope * grad_B
        weight_CB = self._scratch.take(
            "logits", (chunk.level_RB if chunk.out_CB is None else chunk.out_CB).shape
        )
        if seen.exp_NB is not None:
            exp_CB, factor_B = seen.exp_NB[first : first + len(weight_CB)], seen.value_B.neg().exp_()
            return weight_CB.copy_(exp_CB).mul_(factor_B * grad_B * chunk.slope)
        if chunk.out_CB is None:
            torch.addcmul(-seen.value_B, chunk.level_RB, chunk.inverse_R1 * self.margin.scale, out=weight_CB)
        else:
            torch.sub(chunk.out_CB, seen.value_B, out=weight_CB)
        weight_CB.exp_()
        if isinstance(chunk.slope, Tensor):
            return weight_CB.mul_(chunk.slope).mul_(grad_B)
        return weight_CB.mul_(grad_B * chunk.slope)


def _to_rows(weight_CB: Tensor, chunk: _Chunk) -> Tensor:
    """Give the weight of a class to its nearest sub-centre, (R, B)."""
    if chunk.winner_C1B is None:
        return weight_CB
    weight_CKB = torch.zeros_like(chunk.level_RB).view(len(weight_CB), -1, weight_CB.shape[1])
    return weight_CKB.scatter_(1, chunk.winner_C1B, weight_CB[:, None]).view_as(chunk.level_RB)
