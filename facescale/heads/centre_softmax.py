"""Target cosines and negatives of a margin loss against class centres, over all processes."""

from typing import Any, cast

import torch
from torch import Tensor

from facescale.centres.store import CentreStore
from facescale.distributed import Dist
from facescale.heads.chunked_softmax import ChunkedSoftmax
from facescale.heads.class_chunks import ClassChunks
from facescale.heads.saved_batch import SampledBatch
from facescale.heads.softmax import NOTHING, over_processes
from facescale.ops import to_device, unit

# G batch of all processes, N distinct classes of it, K centres of each, D embedding size


def target_cosines(store: CentreStore, e_GD: Tensor, local_G: Tensor) -> Tensor:
    """Cosines to the target class (its best sub-centre), (G,), the same on all processes; 0 without one.

    Args:
        store: the class centres of this process.
        e_GD: unit embeddings.
        local_G: local target classes in host memory, -1 for those of other processes.
    """
    ids, place_G = local_G.clamp_min(0).unique(return_inverse=True)
    rows = store.rows_of(ids)
    there, place_G, local_G = to_device(e_GD.device, rows, place_G, local_G)
    rows_RD = store.open(rows if store.staged else there, only_rows=True, name="targets").rows_RD
    unit_NKD = unit(rows_RD).view(len(ids), store.rows_per_id, -1).to(e_GD.dtype)
    cos_GK = torch.linalg.vecdot(e_GD[:, None], unit_NKD[place_G])
    return store.dist.sum_with_grad(torch.where(local_G >= 0, cos_GK.amax(1), 0.0))


def negatives_value(
    e_GD: Tensor,
    softmax: ChunkedSoftmax,
    chunks: ClassChunks,
    sampled: SampledBatch,
    pending: list[SampledBatch],
    dist: Dist,
) -> Tensor:
    """Log-sum-exp (or sum) over the negatives of all processes, (G,), as a function of the embeddings.

    Args:
        e_GD: unit embeddings, the same on all processes.
        softmax: evaluates a chunk; the learned parameters of its margin get their gradient.
        chunks: the class centres of this process.
        sampled: the batch; its ``saved.value_B`` is set here, ``saved.grad_value_B`` in backward.
        pending: backward appends ``sampled`` here: its rows have a gradient and move after the step.
        dist: this process among its peers.
    """
    parameters = tuple(p for p in softmax.margin.parameters() if p.requires_grad)
    value_G = _Negatives.apply(e_GD, softmax, chunks, sampled, pending, dist, *parameters)  # type: ignore[no-untyped-call]
    return cast(Tensor, value_G)


class _Negatives(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        e_GD: Tensor,
        softmax: ChunkedSoftmax,
        chunks: ClassChunks,
        sampled: SampledBatch,
        pending: list[SampledBatch],
        dist: Dist,
        *parameters: Tensor,
    ) -> Tensor:
        rows = chunks.rows(sampled.classes, sampled.block)
        running_max_G, sum_G, ctx.grad_embedding_GD = softmax.forward(
            sampled.saved, rows, with_grad=ctx.needs_input_grad[0]
        )
        value_G = over_processes(softmax.margin, running_max_G, sum_G, ctx.grad_embedding_GD, dist)
        sampled.saved.value_B = value_G.clamp_min(NOTHING)
        ctx.rest = softmax, chunks, sampled, pending, dist, parameters
        return value_G.to(e_GD.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        softmax, chunks, sampled, pending, dist, parameters = ctx.rest
        sampled.saved.grad_value_B = grads[0].float()
        if not any(other is sampled for other in pending):
            pending.append(sampled)
        of_parameters: list[Tensor] = []
        if parameters:
            rows = chunks.rows(sampled.classes, sampled.block)
            of_parameters = softmax.parameter_gradients(sampled.saved, rows, parameters)
            of_parameters = [dist.all_reduce(grad) for grad in of_parameters]
        grad_GD = (grads[0][:, None] * ctx.grad_embedding_GD).to(grads[0].dtype)
        return grad_GD, *[None] * 5, *of_parameters
