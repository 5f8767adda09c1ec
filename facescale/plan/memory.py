"""What a run will need: bytes, from shapes alone, and time, from two seconds of the real network."""

from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

import torch
from torch import Tensor, nn

from facescale import backbones, heads, margins
from facescale.backbones.profile import skeleton
from facescale.config import Config
from facescale.distributed import Dist
from facescale.heads import ClassHead, Needs
from facescale.margins import Margin
from facescale.plan.plan import Plan

CALIBRATION = 2.0  # seconds
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class BackboneBytes:
    """Memory of the backbone on one process while it trains, in bytes.

    Attributes:
        weights: parameters and buffers.
        average: their moving average, where there is one.
        gradients: of the parameters.
        optimiser: momentum, or AdamW's two averages.
        activations: what the forward pass keeps for the backward pass of one view of one part of the batch.
    """

    weights: int
    average: int
    gradients: int
    optimiser: int
    activations: int

    def total(self, needs: Needs) -> int:
        """All of it, with the twin and the views that a head needs."""
        twin = self.weights if needs.key_views else 0
        fixed = self.weights + self.average + self.gradients + self.optimiser + twin
        return fixed + self.activations * needs.query_views


def head_skeleton(
    name: str, num_ids: int, embedding_size: int, margin: str | Margin, dist: Dist, **options: Any
) -> ClassHead:
    """A head without rows, files or memory on the device, to ask what it needs (``bytes_needed``).

    Raises:
        ValueError: as ``heads.build``.
    """
    built = margins.build(margin) if isinstance(margin, str) else margin
    with torch.device("meta"):
        return heads.build(name, num_ids, embedding_size, built, dist, **options)


def _bytes(tensors: Sequence[Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def backbone_bytes(config: Config, plan: Plan) -> BackboneBytes:
    """Plan the backbone's memory without building it (shapes on the meta device).

    Activations are counted as autograd saves them, in the precision of the run; a custom gradient that keeps
    less than torch's own is not known here, so this is what is needed at most.
    """
    spec = config.backbone
    net = skeleton(spec.name, spec.embedding_size, **spec.options).train()
    parameters = list(net.parameters())
    weights = _bytes([*parameters, *net.buffers()])
    return BackboneBytes(
        weights=weights,
        average=weights if config.train.ema else 0,
        gradients=_bytes(parameters),
        optimiser=_bytes(parameters) * (2 if config.optim.name == "adamw" else 1),
        activations=_activations(net, plan),
    )


def _activations(net: nn.Module, plan: Plan) -> int:
    net = net.to(_DTYPES[plan.precision])
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
    images = torch.empty(plan.part_batch, 3, side, side, device="meta", dtype=_DTYPES[plan.precision])
    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        net(images)
    return sum(seen.values())


def backbone_seconds(config: Config, plan: Plan, needs: Needs) -> float:
    """Seconds that the network takes in an optimiser step, from training it on noise for about two seconds.

    Args:
        config: of the run.
        plan: of the run.
        needs: of the head; a view through the twin takes a third of one that is trained on.
    """
    device = torch.device(plan.device)
    net = backbones.build(config.backbone.name, config.backbone.embedding_size, **config.backbone.options)
    net = net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    batch = min(8, plan.part_batch)
    side = int(net.input_size)
    images = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)
    dtype = _DTYPES[plan.precision]

    def once() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            embedding = net(images)
        embedding.float().square().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    once()
    start, rounds = monotonic(), 0
    while monotonic() - start < CALIBRATION:
        once()
        rounds += 1
    one_image = (monotonic() - start) / rounds / batch
    return one_image * plan.process_batch * (needs.query_views + needs.key_views / 3)


def parse_memory(text: str) -> int:
    """Bytes in a text such as "24GB", "16 GiB" or "512MB".

    Raises:
        ValueError: not an amount of memory.
    """
    units = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
    digits = text.strip().rstrip("BKMGTIbkmgti ")
    unit = text.strip()[len(digits) :].strip().upper()
    try:
        return round(float(digits) * units[unit])
    except (ValueError, KeyError):
        raise ValueError(f"'{text}' is not an amount of memory; write 24GB, 16GiB or 512MB") from None


def gb(num_bytes: int) -> str:
    """Bytes as text."""
    return f"{num_bytes / 1e9:.2f} GB"
