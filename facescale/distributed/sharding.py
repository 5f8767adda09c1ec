"""A network divided over the processes (torch's ``fully_shard``), for one that no device can hold and train.

Each process keeps a part of every weight, of its gradient and of its optimizer state. The weights of a block
are gathered when it computes and freed after it; gradients are averaged as DDP does. What leaves the training
(checkpoints, exports) is whole, so that any number of processes reads it, divided or not.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from facescale.distributed.dist import Dist

_LEAST = 1 / 1000  # share of the weights from which a part is gathered on its own
_MOST = 1 / 8  # share from which its own parts are, instead of the whole of it


def shard_network(net: nn.Module, dist: Dist) -> None:
    """Divide the weights of ``net`` over the processes, in place; they go to the device, as do its buffers.

    All processes call this with the same weights. Blocks go to the device one after the other, so the whole
    network need not fit there.

    Raises:
        ValueError: a weight is a single number, which cannot be divided.
    """
    for name, x in net.named_parameters():
        if x.ndim == 0:
            raise ValueError(
                f"distributed.shard_backbone cannot divide the weight '{name}', a single number; turn it off"
            )
    from torch.distributed.device_mesh import init_device_mesh  # takes seconds to import, and few need it
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(dist.device.type, (dist.world_size,))
    for part in (*parts_of(net), net):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def parts_of(net: nn.Module) -> list[nn.Module]:
    """What is gathered at one time: blocks of a chain, large layers; inner ones first.

    Weights are gathered when a module is called. Of one whose layers are called without it (a list, a stage
    that is unrolled) the layers are taken instead.
    """
    total, called = _numel(net), _called(net)

    def inside(module: nn.Module) -> Iterator[nn.Module]:
        for child in module.children():
            size = _numel(child)
            if size == 0 or size < _LEAST * total:
                continue
            if child not in called or size > _MOST * total:
                yield from inside(child)
            if child in called:
                yield child

    return list(inside(net))


@torch.no_grad()
def _called(net: nn.Module) -> set[nn.Module]:
    """Modules that a forward pass calls; found on the meta device, without memory and arithmetic."""
    called: set[nn.Module] = set()
    modes = [(module, module.training) for module in net.modules()]
    hooks = [module.register_forward_pre_hook(lambda one, _: called.add(one)) for module in net.modules()]
    values = {name: x.to("meta") for name, x in (*net.named_parameters(), *net.named_buffers())}
    side = int(net.input_size)  # type: ignore[arg-type]
    try:
        torch.func.functional_call(net.eval(), values, torch.empty(1, 3, side, side, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    return called


def largest_part(net: nn.Module) -> int:
    """Weights that are gathered at one time at most; those of parts within a part count for themselves."""
    parts = [*parts_of(net), net]
    own = {id(part): {id(p): p.numel() for p in part.parameters()} for part in parts}
    taken: set[int] = set()
    sizes = []
    for part in parts:
        sizes.append(sum(count for key, count in own[id(part)].items() if key not in taken))
        taken |= own[id(part)].keys()
    return max(sizes)


def _numel(module: nn.Module) -> int:
    return sum(x.numel() for x in module.parameters())


def is_sharded(net: nn.Module) -> bool:
    """Whether ``shard_network`` has divided it, or gathers it as a part of another."""
    return hasattr(net, "unshard")


@contextmanager
def gathered(net: nn.Module) -> Iterator[None]:
    """Inside: every process has all weights, so each may call the network as often as it likes."""
    parts: list[Any] = [part for part in net.modules() if is_sharded(part)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def local(x: Tensor) -> Tensor:
    """The part of a tensor that this process has; all of it where it is not divided. No gradient."""
    return cast(Any, x).to_local().detach() if _is_part(x) else x


def _is_part(x: Any) -> bool:
    """Whether a tensor is torch's DTensor, whose module takes seconds to import."""
    return isinstance(x, Tensor) and hasattr(x, "full_tensor")


def whole(tree: Any, dist: Dist) -> Any:
    """Nested dicts, lists and tuples with divided tensors put together, in host memory of the main process.

    All processes call this; the others get empty tensors. One at a time is whole on the device. What is not
    divided stays as it is.
    """
    if _is_part(tree):
        full = tree.full_tensor().detach()
        return full.to("cpu", copy=True) if dist.is_main else torch.empty(0)
    if isinstance(tree, dict):
        result = copy.copy(tree)  # of its own type: a state dict has attributes
        for key, value in tree.items():
            result[key] = whole(value, dist)
        return result
    if isinstance(tree, list | tuple):
        return type(tree)(whole(value, dist) for value in tree)
    return tree


def divided(full: Tensor, like: Tensor) -> Tensor:
    """This process's part of a whole tensor, divided as ``like`` is; the tensor itself where that is not."""
    if not _is_part(like) or _is_part(full) or full.shape != like.shape:
        return full
    from torch.distributed.tensor import DTensor

    assert isinstance(like, DTensor)
    mesh = like.device_mesh
    rows = -(-len(full) // mesh.size())
    start = min(len(full), mesh.get_local_rank() * rows)
    own = full[start : start + rows].to(like.device, copy=True, memory_format=torch.contiguous_format)
    return DTensor.from_local(
        own, mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )


def load_weights(net: nn.Module, state_dict: Mapping[str, Any]) -> None:
    """``net.load_state_dict`` of whole tensors, whether the network is divided or not."""
    here = dict(state_dict)
    for key, own in net.state_dict().items():
        if _is_part(own) and key in here:
            here[key] = divided(here[key], own)
    net.load_state_dict(here)


def load_optimizer(optimizer: torch.optim.Optimizer, saved: Mapping[str, Any]) -> None:
    """``optimizer.load_state_dict`` of whole tensors, whether its weights are divided or not.

    How the optimizer computes (its ``fused`` and ``foreach``) stays as it is. State gets the memory layout of
    its weight, which another kind of run may have had in another one: fused kernels take both to be the same.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def fitted(x: Any, p: nn.Parameter) -> Any:
        if not isinstance(x, Tensor) or x.shape != p.shape:
            return x
        if _is_part(p):
            return divided(x, p)
        return x if x.stride() == p.stride() else torch.empty_like(p, requires_grad=False).copy_(x)

    state = {
        number: {key: fitted(x, parameters[number]) for key, x in values.items()}
        for number, values in saved["state"].items()
    }
    groups = saved["param_groups"]
    if len(groups) == len(optimizer.param_groups):  # else torch says what is wrong
        ways = [{key: group[key] for key in ("fused", "foreach")} for group in optimizer.param_groups]
        groups = [{**group, **way} for group, way in zip(groups, ways, strict=True)]
    optimizer.load_state_dict({**saved, "state": state, "param_groups": groups})


def clip_grad_norm(parameters: Iterable[nn.Parameter], limit: float, dist: Dist) -> Tensor:
    """Scale gradients so that their norm is ``limit`` at most; returns the norm before, a scalar.

    Args:
        parameters: of one network, divided or not.
        limit: of the norm.
        dist: this process among its peers.
    """
    parameters = list(parameters)
    if not any(_is_part(p) for p in parameters):
        return torch.nn.utils.clip_grad_norm_(parameters, limit)
    own = [local(p.grad) for p in parameters if p.grad is not None]
    norm = torch.nn.utils.get_total_norm(own).to(dist.device, torch.float64)
    norm = dist.all_reduce(norm.square()).sqrt().float()
    torch._foreach_mul_(own, (limit / (norm + 1e-6)).clamp(max=1.0))
    return norm
