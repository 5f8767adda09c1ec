"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) for the linear layers of vision transformers.

Shapes: r rank, I inputs and O outputs of a layer.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.distributed.sharding import load_weights

Adapted = Literal["attention", "attention+mlp"]

# Layers by the last two parts of their names, as facescale's and timm's transformers have them
_ATTENTION = {"attn.qkv", "attn.q", "attn.kv", "attn.k", "attn.v", "attn.proj"}
_MLP = {"mlp.fc1", "mlp.fc2"}


class LowRankLinear(nn.Linear):
    """A linear layer with a trained update of low rank: y = W x + b + U (D x), equation 3 of the paper.

    W and b keep the names of a plain layer. D (r, I) starts random and U (O, r) at zero, so a new adapter
    changes nothing. The paper's factor alpha / r is left out: it has the effect of another learning rate.

    Args:
        plain: the layer; its weight and bias are taken over, not copied, and do not train any more.
        rank: r.
    """

    def __init__(self, plain: nn.Linear, rank: int) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = plain.in_features, plain.out_features
        self.weight, self.bias = plain.weight, plain.bias
        self.down = nn.Parameter(plain.weight.new_empty(rank, plain.in_features))
        self.up = nn.Parameter(plain.weight.new_zeros(plain.out_features, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., I) to (..., O)."""
        return F.linear(x, self.weight, self.bias) + F.linear(F.linear(x, self.down), self.up)


def add_adapters(net: nn.Module, rank: int, layers: Adapted = "attention") -> None:
    """Give linear layers of a transformer adapters, in place; nothing else of it trains any more.

    Args:
        net: the network.
        rank: of the updates.
        layers: the query, key, value and output maps of attention, or those and the two of each MLP.

    Raises:
        ValueError: the network has no such layer, or a rank that saves nothing.
    """
    wanted = _ATTENTION | _MLP if layers == "attention+mlp" else _ATTENTION
    found = {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear) and ".".join(name.split(".")[-2:]) in wanted
    }
    if not found:
        raise ValueError(
            f"finetune.adapters = {rank}: this backbone has no attention layers that could get adapters; use "
            "them with a vision transformer (vit_t to vit_h, timm:vit_...), and finetune.freeze with others"
        )
    least = min(min(one.in_features, one.out_features) for one in found.values())
    if rank >= least:
        raise ValueError(
            f"finetune.adapters = {rank} is not a low rank: a layer has {least} inputs or outputs; use a "
            f"rank from 1 to {least - 1}, such as 8"
        )
    net.requires_grad_(False)
    for name, plain in found.items():
        parent, _, own_name = name.rpartition(".")
        setattr(net.get_submodule(parent), own_name, LowRankLinear(plain, rank))


def adapter_state(net: nn.Module) -> dict[str, Tensor]:
    """The entries of a state dict that belong to adapters; empty for a network without."""
    return {
        f"{name}.{part}": getattr(module, part)
        for name, module in net.named_modules()
        if isinstance(module, LowRankLinear)
        for part in ("down", "up")
    }


def plain_state(net: nn.Module) -> dict[str, Tensor]:
    """The state dict without its adapters: what the network began with."""
    added = adapter_state(net)
    return {name: value for name, value in net.state_dict().items() if name not in added}


def merged(plain: Mapping[str, Tensor], adapters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a plain network that computes the same: W + U D for every adapted layer.

    Args:
        plain: state dict of the network without adapters.
        adapters: as of ``adapter_state``.

    Raises:
        ValueError: adapters that do not fit the network.
    """
    state = dict(plain)
    for layer in sorted({name.rpartition(".")[0] for name in adapters}):
        weight, down, up = (
            found.get(f"{layer}.{part}", torch.empty(0))
            for found, part in ((state, "weight"), (adapters, "down"), (adapters, "up"))
        )
        has_shape = weight.ndim == down.ndim == up.ndim == 2
        if not has_shape or (len(up), down.shape[1], len(down)) != (*weight.shape, up.shape[1]):
            raise ValueError(f"the adapters of '{layer}' do not fit a layer of the network")
        state[f"{layer}.weight"] = (weight.double() + up.double() @ down.double()).to(weight.dtype)
    return state


def load_plain(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load the weights of a network without adapters; those that it has stay as they are.

    Raises:
        RuntimeError: as ``load_state_dict``.
    """
    load_weights(net, {**state, **adapter_state(net)})


def own_state(net: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint must hold of a network: all of it, or its adapters alone, as the rest is frozen."""
    return adapter_state(net) or net.state_dict()


def load_own(net: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what ``own_state`` gave.

    Raises:
        RuntimeError: as ``load_state_dict``.
    """
    load_weights(net, {**plain_state(net), **state} if adapter_state(net) else state)
