"""What a run will need: bytes, from shapes alone, and time, from two seconds of the real network."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from facescale.backbones.low_rank import own_state
from facescale.backbones.norm import shapes_only
from facescale.config import Config
from facescale.distributed import Dist
from facescale.distributed.sharding import largest_part
from facescale.heads import ClassHead, Needs
from facescale.ops import PRECISIONS
from facescale.plan.components import backbone_skeleton, build_head
from facescale.plan.plan import Plan

# Measured (docs/benchmarks.md): tensors of the largest layer's size that exist at once in its backward pass,
# those of a view through the twin, and the share of the activations that lies idle between blocks.
_AT_ONCE = 4
_OF_TWIN = 3
_GAPS = 0.08
_GATHERED = 3  # of divided weights: the largest block, its gradient, and the buffer that exchanges either


@dataclass(frozen=True)
class BackboneBytes:
    """Memory of the backbone on one process while it trains, in bytes.

    Attributes:
        weights: parameters and buffers.
        average: their moving average, where there is one.
        own: of the weights, what a checkpoint holds: all of them, or low-rank adapters.
        gradients: of the parameters.
        optimizer: momentum, or AdamW's two averages.
        activations: what the forward pass keeps for the backward pass of one view of one part of the batch.
        working: beside that while it computes: gradients of activations, weights in half precision, blocks of
            divided weights that are gathered, and what the allocator loses to gaps.
        largest: the largest tensor among the activations.
        shares: processes among which all of that but buffers, activations and ``working`` is divided.
    """

    weights: int
    average: int
    own: int
    gradients: int
    optimizer: int
    activations: int
    working: int
    largest: int
    shares: int = 1

    def total(self, needs: Needs) -> int:
        """All of it, with the twin and the views that a head needs."""
        twin = self.weights if needs.key_views else 0
        fixed = self.weights + self.average + self.gradients + self.optimizer + twin + self.working
        fixed += _OF_TWIN * self.largest * needs.key_views
        return fixed + self.activations * needs.query_views

    def saved(self, needs: Needs) -> int:
        """What a checkpoint holds of it: weights, their average, the twin, the optimizer's state."""
        twin = self.weights if needs.key_views else 0
        return self.own * (2 if self.average else 1) + self.shares * (twin + self.optimizer)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def backbone_bytes(config: Config, plan: Plan) -> BackboneBytes:
    """Plan the backbone's memory without building it (shapes on the meta device).

    Activations are counted as autograd saves them, in the precision of the run. Of custom gradients, only
    that of ``backbones.norm`` is known to keep less than torch's own: this is what is needed at most.
    """
    net = backbone_skeleton(config).train()
    shares = plan.world_size if config.distributed.shard_backbone else 1
    parameters, buffers = _bytes(list(net.parameters())), _bytes(list(net.buffers()))
    trained = _bytes([p for p in net.parameters() if p.requires_grad])
    own = _bytes(list(own_state(net).values()))
    weights = buffers + parameters // shares
    gradients = trained // shares
    half_weights = 0 if plan.precision == "fp32" else parameters // 2  # kept for a whole step
    # Before the activations, which come in half precision as the network does
    at_once = 4 * largest_part(net) if shares > 1 else 0
    if shares > 1 and config.backbone.options.get("checkpointing"):
        half_weights = min(half_weights, at_once // 2)  # those of the block that computes
    activations, largest = _activations(net, plan)
    working = round(_AT_ONCE * largest + _GAPS * activations) + half_weights + _GATHERED * at_once
    if shares > 1:  # an evaluation gathers the whole network, without activations and gradients
        working = max(working, parameters - activations - gradients)
    return BackboneBytes(
        weights=weights,
        average=weights if config.train.ema else 0,
        own=own,
        gradients=gradients,
        optimizer=gradients * (2 if config.optim.name == "adamw" else 1),
        activations=activations,
        working=working,
        largest=largest,
        shares=shares,
    )


def _activations(net: nn.Module, plan: Plan) -> tuple[int, int]:
    """Bytes of all that is kept for the backward pass, and of the largest tensor among it."""
    net = net.to(PRECISIONS[plan.precision])
    own = {x.untyped_storage()._cdata for x in net.parameters()}
    seen: dict[int, int] = {}

    def count(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage._cdata not in own:
            seen[storage._cdata] = storage.nbytes()
            kept.append(x)  # a freed storage would lend its number to another one
        return x

    kept: list[Tensor] = []
    side = int(net.input_size)  # type: ignore[arg-type]
    images = torch.empty(plan.part_batch, 3, side, side, device="meta", dtype=PRECISIONS[plan.precision])
    with (
        shapes_only(torch.device(plan.device).type),
        torch.autograd.graph.saved_tensors_hooks(count, lambda x: x),
    ):
        net(images)
    return sum(seen.values()), max(seen.values())


def skeleton_of(config: Config, plan: Plan, rank: int = 0) -> ClassHead:
    """The head of a config without its rows, on one process of the plan.

    Raises:
        ValueError: as ``heads.build``.
    """
    dist = Dist(rank, plan.world_size, torch.device(plan.device))
    with torch.device("meta"):
        return build_head(config, plan.num_ids, dist, Path())
