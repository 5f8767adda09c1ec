"""Parts of a margin loss that several heads share."""

import torch
import torch.nn.functional as F
from torch import Tensor

from facescale.distributed import Dist
from facescale.margins import Margin

# G batch of all processes, D embedding size

NOTHING = -1e30  # stands for log 0 where minus infinity would make NaN
_FLOOR = 1e-30  # least probability of the target class in Partial FC's release


def is_plain(margin: Margin) -> bool:
    """Whether the logits of negatives are their scaled cosines and nothing is counted."""
    return margin.reduction == "softmax" and margin.plain_negatives and margin.counts is None


def is_bounded(margin: Margin) -> bool:
    """Whether float32 holds the sum of exp(logit) of all negatives, with nothing subtracted."""
    return margin.plain_negatives and margin.scale < 64.1


def over_processes(
    margin: Margin, running_max_G: Tensor, sum_G: Tensor, grad_embedding_GD: Tensor, dist: Dist
) -> Tensor:
    """Join what each process has found over its classes; all processes get the same.

    Args:
        margin: its ``counts`` are summed, too.
        running_max_G: largest logit of this process's classes (0 for margins that sum).
        sum_G: sum of exp(logit - largest), or of the losses.
        grad_embedding_GD: in place, gradient of the value by the unit embedding: for softmax it is given
            relative to exp(largest) and still to be divided by the sum of all processes.
        dist: this process among its peers.

    Returns:
        (G,) log-sum-exp over all classes, minus infinity where there is none; the sum for margins that sum.
    """
    if margin.reduction == "softmax":
        max_G = dist.all_reduce(running_max_G.clone(), "max")
        shrink_G = (running_max_G - max_G).exp()
        sum_G = dist.all_reduce(sum_G * shrink_G)
        grad_embedding_GD *= (shrink_G / sum_G.clamp_min(torch.finfo(sum_G.dtype).tiny))[:, None]
        value_G = max_G + sum_G.log()
    else:
        value_G = dist.all_reduce(sum_G)
    if margin.counts is not None:
        dist.all_reduce(margin.counts)
    return value_G


def sample_losses(margin: Margin, target_G: Tensor, negatives_G: Tensor) -> Tensor:
    """Loss of each sample from the target's logit (or loss) and the log-sum-exp (or sum) of the negatives."""
    if margin.reduction == "sum":
        return target_G + negatives_G
    # -log(exp(target) / (exp(target) + sum of the negatives))
    return F.softplus(negatives_G - target_G, threshold=80)


def released_losses(margin: Margin, target_G: Tensor, negatives_G: Tensor, has_G: Tensor) -> Tensor:
    """Losses as Partial FC's release has them.

    Softmax: -log p is cut at -log 1e-30 = 69.08 in value, not in gradient; samples without a target class
    have that loss. Sum: theirs is that of the negatives alone.

    Args:
        margin: see ``sample_losses``.
        target_G: see there.
        negatives_G: see there.
        has_G: whether a sample has a target class.
    """
    if margin.reduction == "sum":
        return torch.where(has_G, target_G, 0.0) + negatives_G
    floor = -float(torch.log(torch.tensor(_FLOOR)))  # on the host: nothing waits for the device
    loss_G = torch.where(has_G, sample_losses(margin, target_G, negatives_G), negatives_G)
    cut_G = torch.where(has_G, loss_G.clamp(max=floor), floor)
    return loss_G + (cut_G - loss_G).detach()


def with_batch_terms(loss: Tensor, margin: Margin, x_GD: Tensor, norm_G: Tensor, id_G: Tensor) -> Tensor:
    """Add the terms of the margin that depend on the embeddings alone.

    Args:
        loss: scalar.
        margin: the margin.
        x_GD: raw embeddings, the same on all processes (``Dist.shared``).
        norm_G: their norms.
        id_G: identities.
    """
    for term in (margin.penalty(norm_G), margin.batch_term(x_GD, id_G)):
        loss = loss if term is None else loss + term
    return loss
