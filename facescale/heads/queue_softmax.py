"""The other classes' part of a margin loss where centres get no gradient: chunk by chunk, without logits."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from torch import Tensor

from facescale.distributed import Dist
from facescale.heads.softmax import NOTHING
from facescale.margins import Margin, Own

# G batch of all processes, C rows of a chunk, D embedding size


# Gives, each time it is called, the chunks: unit rows (C, D) and the cells (C, G) that do not count, or None.
Chunks = Callable[[], Iterator[tuple[Tensor, Tensor | None]]]


def others_value(
    e_GD: Tensor, margin: Margin, own: Own, chunks: Chunks, dtype: torch.dtype, dist: Dist
) -> Tensor:
    """Log-sum-exp over all rows of all processes after the margin (the sum, for margins that sum), (G,).

    With l = others(cos), p = exp(l - value) for softmax margins and p = 1 for margins that sum, the gradient
    of value_g by the unit embedding is sum_c p_gc l'(cos_gc) w_c; the forward pass makes it along with the
    value, so that only one chunk of logits ever exists. Where nothing counts the value is NOTHING (or 0).

    Args:
        e_GD: unit embeddings, the same on all processes.
        margin: the margin; its learned parameters get their gradient.
        own: what it prepared.
        chunks: this process's rows.
        dtype: precision of the products.
        dist: this process among its peers.
    """
    fixed = Own(own.cos_B.detach(), {name: x.detach() for name, x in own.extra.items()})
    parameters = tuple(p for p in margin.parameters() if p.requires_grad)
    value_G = _Others.apply(e_GD, margin, fixed, chunks, dtype, dist, *parameters)  # type: ignore[no-untyped-call]
    return cast(Tensor, value_G)


class _Others(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        e_GD: Tensor,
        margin: Margin,
        own: Own,
        chunks: Chunks,
        dtype: torch.dtype,
        dist: Dist,
        *parameters: Tensor,
    ) -> Tensor:
        softmax = margin.reduction == "softmax"
        top_G = e_GD.new_full((len(e_GD),), NOTHING if softmax else 0.0)
        sum_G, pull_GD = torch.zeros_like(top_G), torch.zeros_like(e_GD)
        for rows_CD, hidden_CG in chunks():
            top_G = _add_chunk(
                top_G, sum_G, pull_GD, e_GD, margin, own, rows_CD, hidden_CG, dtype, ctx.needs_input_grad[0]
            )
        if softmax:
            higher_G = dist.all_reduce(top_G.clone(), "max")
            shrink_G = (top_G - higher_G).exp()
            sum_G = dist.all_reduce(sum_G * shrink_G)
            tiny = torch.finfo(sum_G.dtype).tiny
            pull_GD *= (shrink_G / sum_G.clamp_min(tiny))[:, None]
            value_G = (higher_G + sum_G.log()).clamp_min(NOTHING)
        else:
            value_G = dist.all_reduce(sum_G)
        if margin.tally is not None:
            dist.all_reduce(margin.tally)
        ctx.save_for_backward(e_GD, value_G, pull_GD)
        ctx.rest = margin, own, chunks, dtype, dist, parameters
        return value_G

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        e_GD, value_G, pull_GD = ctx.saved_tensors
        margin, own, chunks, dtype, dist, parameters = ctx.rest
        totals = [torch.zeros_like(p) for p in parameters]
        for rows_CD, hidden_CG in chunks() if parameters else ():
            cos_GC = _cosines(e_GD, rows_CD, dtype)
            with torch.enable_grad():
                out_GC = margin.others(cos_GC, own)
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
        return grads[0][:, None] * pull_GD, *[None] * 5, *(dist.all_reduce(total) for total in totals)


def _add_chunk(
    top_G: Tensor,
    sum_G: Tensor,
    pull_GD: Tensor,
    e_GD: Tensor,
    margin: Margin,
    own: Own,
    rows_CD: Tensor,
    hidden_CG: Tensor | None,
    dtype: torch.dtype,
    with_pull: bool,
) -> Tensor:
    """Add a chunk to the running sum and pull (both relative to exp(top)), in place; returns the new top."""
    softmax = margin.reduction == "softmax"
    cos_GC = _cosines(e_GD, rows_CD, dtype)
    margin.observe(cos_GC, own)
    out_GC, slope_GC = _margin_and_slope(margin, cos_GC, own)
    if hidden_CG is not None:
        out_GC.masked_fill_(hidden_CG.T, -torch.inf if softmax else 0.0)
    if softmax:
        higher_G = torch.maximum(top_G, out_GC.amax(1))
        shrink_G = (top_G - higher_G).exp_()
        sum_G.mul_(shrink_G)
        pull_GD.mul_(shrink_G[:, None])
        top_G = higher_G
        out_GC.sub_(top_G[:, None]).exp_()
    sum_G += out_GC.sum(1)
    if with_pull:
        weight_GC = out_GC.mul_(slope_GC) if softmax else torch.zeros_like(out_GC).add_(slope_GC)
        if hidden_CG is not None and not softmax:
            weight_GC.masked_fill_(hidden_CG.T, 0.0)
        pull_GD += torch.mm(weight_GC.to(dtype), rows_CD.to(dtype)).to(pull_GD.dtype)
    return top_G


def _cosines(e_GD: Tensor, rows_CD: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.mm(e_GD.to(dtype), rows_CD.to(dtype).T).to(e_GD.dtype)


def _margin_and_slope(margin: Margin, cos_GC: Tensor, own: Own) -> tuple[Tensor, Tensor | float]:
    """Others' logits (or losses) and their derivative by the cosine; may use up the cosines."""
    if margin.plain_others:
        return cos_GC.mul_(margin.scale), margin.scale
    with torch.enable_grad():
        leaf_GC = cos_GC.detach().requires_grad_()
        out_GC = margin.others(leaf_GC, own)
        (slope_GC,) = torch.autograd.grad(out_GC.sum(), leaf_GC)
    return out_GC.detach(), slope_GC
