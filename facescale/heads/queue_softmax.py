"""The negatives of a margin loss where centres get no gradient: chunk by chunk, without all logits."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

from facescale.distributed import Dist
from facescale.heads.softmax import NOTHING, over_processes
from facescale.margins import Margin, TargetLogits

# G batch of all processes, C rows of a chunk, D embedding size


@dataclass(frozen=True)
class SameKey:
    """Cells of a chunk that do not count: those of a row and a sample with the same key.

    Attributes:
        key_C: int64, of the rows.
        own_G: int64, of the samples.
    """

    key_C: Tensor
    own_G: Tensor

    @property
    def cells_CG(self) -> Tensor:  # noqa: N802
        """The cells one by one."""
        return self.key_C[:, None] == self.own_G


# Gives, each time it is called, the chunks: unit rows (C, D) and the cells (C, G) that do not count, or None.
Hidden = Tensor | SameKey | None
Chunks = Callable[[], Iterator[tuple[Tensor, Hidden]]]


def negatives_value(
    e_GD: Tensor,
    margin: Margin,
    target: TargetLogits,
    chunks: Chunks,
    dtype: torch.dtype,
    dist: Dist,
    kernels: ModuleType | None = None,
) -> Tensor:
    """Log-sum-exp over all rows of all processes after the margin (the sum, for margins that sum), (G,).

    With l = negatives(cos), p = exp(l - value) for softmax margins and p = 1 for margins that sum, the
    gradient of value_g by the unit embedding is sum_c p_gc l'(cos_gc) w_c; the forward pass makes it along
    with the value, so that only one chunk of logits ever exists. Without negatives the value is NOTHING (or
    0).

    Args:
        e_GD: unit embeddings, the same on all processes.
        margin: the margin; its learned parameters get their gradient.
        target: what it prepared.
        chunks: this process's rows.
        dtype: precision of the products.
        dist: this process among its peers.
        kernels: ``kernels.class_softmax``, for chunks that hide a ``SameKey`` and bounded logits.
    """
    fixed = TargetLogits(target.cos_B.detach(), {name: x.detach() for name, x in target.extra.items()})
    parameters = tuple(p for p in margin.parameters() if p.requires_grad)
    rest = margin, fixed, chunks, dtype, dist, kernels
    value_G = _Negatives.apply(e_GD, *rest, *parameters)  # type: ignore[no-untyped-call]
    return cast(Tensor, value_G)


class _Negatives(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        e_GD: Tensor,
        margin: Margin,
        target: TargetLogits,
        chunks: Chunks,
        dtype: torch.dtype,
        dist: Dist,
        kernels: ModuleType | None,
        *parameters: Tensor,
    ) -> Tensor:
        softmax = margin.reduction == "softmax"
        if kernels is None:
            running_max_G = e_GD.new_full((len(e_GD),), NOTHING if softmax else 0.0)
            sum_G, grad_embedding_GD = torch.zeros_like(running_max_G), torch.zeros_like(e_GD)
            for rows_CD, hidden in chunks():
                running_max_G = _add_chunk(
                    running_max_G,
                    sum_G,
                    grad_embedding_GD,
                    e_GD,
                    margin,
                    target,
                    rows_CD,
                    _cells(hidden),
                    dtype,
                    ctx.needs_input_grad[0],
                )
            value_G = over_processes(margin, running_max_G, sum_G, grad_embedding_GD, dist)
        else:
            value_G, grad_embedding_GD = _by_kernels(kernels, e_GD, chunks, margin, dtype, dist)
        if softmax:
            value_G = value_G.clamp_min(NOTHING)
        ctx.save_for_backward(e_GD, value_G, grad_embedding_GD)
        ctx.rest = margin, target, chunks, dtype, dist, parameters
        return value_G

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        e_GD, value_G, grad_embedding_GD = ctx.saved_tensors
        margin, target, chunks, dtype, dist, parameters = ctx.rest
        totals = [torch.zeros_like(p) for p in parameters]
        for rows_CD, hidden in chunks() if parameters else ():
            hidden_CG = _cells(hidden)
            cos_GC = _cosines(e_GD, rows_CD, dtype)
            with torch.enable_grad():
                out_GC = margin.negatives(cos_GC, target)
            if not out_GC.requires_grad:  # the parameters act elsewhere (UniTSFace's threshold)
                break
            weight_GC = torch.ones_like(out_GC)
            if margin.reduction == "softmax":
                weight_GC = (out_GC.detach() - value_G[:, None]).exp()
            if hidden_CG is not None:
                weight_GC = weight_GC.masked_fill(hidden_CG.T, 0.0)
            found = torch.autograd.grad(out_GC, parameters, weight_GC * grads[0][:, None], allow_unused=True)
            for total, grad in zip(totals, found, strict=True):
                if grad is not None:
                    total += grad
        return (
            grads[0][:, None] * grad_embedding_GD,
            *[None] * 6,
            *(dist.all_reduce(total) for total in totals),
        )


def _cells(hidden: Hidden) -> Tensor | None:
    """Cells (C, G) that do not count."""
    return hidden.cells_CG if isinstance(hidden, SameKey) else hidden


def _by_kernels(
    kernels: ModuleType, e_GD: Tensor, chunks: Chunks, margin: Margin, dtype: torch.dtype, dist: Dist
) -> tuple[Tensor, Tensor]:
    """Log-sum-exp over all chunks of all processes, and its gradient by the embeddings."""
    factor_GD = e_GD.detach().to(dtype)
    parts = chunks() if len(e_GD) else iter(())
    first, second = next(parts, None), next(parts, None)

    def rows(part: tuple[Tensor, Hidden]) -> Any:
        assert isinstance(part[1], SameKey)
        return kernels.Rows(part[0], part[1].own_G, key_C=part[1].key_C, unit=True)

    if first is not None and second is None and dist.world_size == 1:
        value_G, grad_GD = kernels.value(factor_GD, rows(first), margin.scale, True)
        return value_G, grad_GD
    max_G, sum_G = e_GD.new_zeros(2, len(e_GD))
    grad_GD = torch.zeros_like(e_GD)
    for part in chain([one for one in (first, second) if one is not None], parts):
        _, more_G, more_GD = kernels.forward(factor_GD, rows(part), margin.scale, True)
        sum_G, grad_GD = sum_G + more_G, grad_GD.add_(more_GD)
    return over_processes(margin, max_G, sum_G, grad_GD, dist), grad_GD


def _add_chunk(
    running_max_G: Tensor,
    sum_G: Tensor,
    grad_embedding_GD: Tensor,
    e_GD: Tensor,
    margin: Margin,
    target: TargetLogits,
    rows_CD: Tensor,
    hidden_CG: Tensor | None,
    dtype: torch.dtype,
    with_grad: bool,
) -> Tensor:
    """Add a chunk to the running sum and gradient (relative to exp(running max)), in place; the new max."""
    softmax = margin.reduction == "softmax"
    cos_GC = _cosines(e_GD, rows_CD, dtype)
    margin.observe(cos_GC, target)
    out_GC, slope_GC = _margin_and_slope(margin, cos_GC, target)
    if hidden_CG is not None:
        out_GC.masked_fill_(hidden_CG.T, -torch.inf if softmax else 0.0)
    if softmax:
        new_max_G = torch.maximum(running_max_G, out_GC.amax(1))
        shrink_G = (running_max_G - new_max_G).exp_()
        sum_G.mul_(shrink_G)
        grad_embedding_GD.mul_(shrink_G[:, None])
        running_max_G = new_max_G
        out_GC.sub_(running_max_G[:, None]).exp_()
    sum_G += out_GC.sum(1)
    if with_grad:
        weight_GC = out_GC.mul_(slope_GC) if softmax else torch.zeros_like(out_GC).add_(slope_GC)
        if hidden_CG is not None and not softmax:
            weight_GC.masked_fill_(hidden_CG.T, 0.0)
        grad_embedding_GD += torch.mm(weight_GC.to(dtype), rows_CD.to(dtype)).to(grad_embedding_GD.dtype)
    return running_max_G


def _cosines(e_GD: Tensor, rows_CD: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.mm(e_GD.to(dtype), rows_CD.to(dtype).T).to(e_GD.dtype)


def _margin_and_slope(margin: Margin, cos_GC: Tensor, target: TargetLogits) -> tuple[Tensor, Tensor | float]:
    """Logits (or losses) of negatives and their derivative by the cosine; may use up the cosines."""
    if margin.plain_negatives:
        return cos_GC.mul_(margin.scale), margin.scale
    with torch.enable_grad():
        leaf_GC = cos_GC.detach().requires_grad_()
        out_GC = margin.negatives(leaf_GC, target)
        (slope_GC,) = torch.autograd.grad(out_GC.sum(), leaf_GC)
    return out_GC.detach(), slope_GC
