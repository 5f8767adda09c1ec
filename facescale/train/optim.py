"""The learning rate over time, and which parameters decay."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from facescale.config import OptimConfig, duration_steps
from facescale.distributed.sharding import is_sharded

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a pure function of the step.

    Linear warm-up, then polynomial decay (1 - t)^power, cosine (1 + cos(pi t)) / 2, or the product of the
    ``gammas`` whose milestones are reached.

    ``compat``, as released: step n of the warm-up has rate n / warmup of ``base``. For step 0 that is 0 in
    F2C's multistep; insightface's polynomial begins with one step at the full rate instead.

    Attributes:
        base: rate at the end of the warm-up.
        total: steps of the run.
        warmup: steps of the linear rise.
        kind: polynomial, cosine or multistep.
        power: exponent of the polynomial.
        milestones: steps at which multistep drops, counted from the start of the run (F2C's release counts
            from the end of the warm-up).
        gammas: factor of each drop, one per milestone.
        compat: the released warm-up, see above.
    """

    base: float
    total: int
    warmup: int = 0
    kind: str = "polynomial"
    power: float = 1.0
    milestones: tuple[int, ...] = ()
    gammas: tuple[float, ...] = ()
    compat: bool = False

    def __call__(self, step: int) -> float:
        """Rate of the optimizer step number ``step`` (the first is 0)."""
        if step < self.warmup:
            if self.compat:
                full_rate_first = step == 0 and self.kind != "multistep"
                return self.base * (1.0 if full_rate_first else step / self.warmup)
            return self.base * (step + 1) / self.warmup
        if self.kind == "multistep":
            drops = zip(self.milestones, self.gammas, strict=True)
            return self.base * math.prod(gamma for milestone, gamma in drops if step >= milestone)
        done = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        if self.kind == "cosine":
            return self.base * (1 + math.cos(math.pi * done)) / 2
        return float(self.base * (1 - done) ** self.power)


def make_schedule(config: OptimConfig, batch_size: int, steps_per_epoch: int, total: int) -> Schedule:
    """The schedule of a run; the rate is scaled from the reference batch to ``batch_size`` images a step."""
    milestones = tuple(duration_steps(text, steps_per_epoch, total) for text in config.milestones)
    gammas = config.gammas if len(config.gammas) == len(milestones) else config.gammas * len(milestones)
    return Schedule(
        base=config.lr * batch_size / config.reference_batch,
        total=total,
        warmup=duration_steps(config.warmup, steps_per_epoch, total),
        kind=config.schedule,
        power=config.power,
        milestones=milestones,
        gammas=tuple(gammas),
        compat=config.compat,
    )


def parameter_groups(
    module: nn.Module, weight_decay: float, compat: bool, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters in groups: with and without decay, and by block where rates differ.

    Weights of norms, every vector and scalar (biases, PReLU slopes) do not decay, unless ``compat``. The
    ``lr_scale`` of a group is its factor on the learning rate: 1 for the last block, ``layer_decay`` for the
    one before.
    """
    no_decay = {id(p) for m in module.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    scales = _block_scales([name for name, _ in module.named_parameters()], layer_decay)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for scale in sorted(set(scales.values()), reverse=True) or [1.0]:
        groups |= {(scale, True): [], (scale, False): []}
    for name, parameter in named:
        decays = compat or (parameter.ndim >= 2 and id(parameter) not in no_decay)
        groups[scales[name], decays].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "lr_scale": scale}
        for (scale, decays), parameters in groups.items()
        if parameters
    ]


def _block_scales(names: Sequence[str], layer_decay: float) -> dict[str, float]:
    """Factor on the learning rate by parameter name; a block is what its first two parts name."""
    blocks = {name: ".".join(name.split(".")[:-1][:2]) for name in names}
    order = {block: place for place, block in enumerate(dict.fromkeys(blocks.values()))}
    return {name: layer_decay ** (len(order) - 1 - order[block]) for name, block in blocks.items()}


def make_optimizer(
    config: OptimConfig, *modules: nn.Module, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters of ``modules``; only the first has rates by block."""
    fused = not any(is_sharded(module) for module in modules)  # torch has no such SGD of divided weights
    decays = [layer_decay] + [1.0] * (len(modules) - 1)
    groups = [
        group
        for module, decay in zip(modules, decays, strict=True)
        for group in parameter_groups(module, config.weight_decay, config.compat, decay)
    ]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=fused)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
    )
