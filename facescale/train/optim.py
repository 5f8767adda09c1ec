"""The learning rate over time, and which parameters decay."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from facescale.config import OptimConfig, duration_steps

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


@dataclass(frozen=True)
class Schedule:
    """Learning rate as a pure function of the step.

    Linear warm-up, then polynomial decay (1 - t)^power, cosine (1 + cos(pi t)) / 2, or drops by ``gamma``.

    Attributes:
        base: rate at the end of the warm-up.
        total: steps of the run.
        warmup: steps of the linear rise.
        kind: polynomial, cosine or multistep.
        power: exponent of the polynomial.
        milestones: steps at which multistep drops.
        gamma: factor of each drop.
        compat: the released schedulers: step n of the warm-up has rate n / warmup, step 0 the full rate.
    """

    base: float
    total: int
    warmup: int = 0
    kind: str = "polynomial"
    power: float = 1.0
    milestones: tuple[int, ...] = ()
    gamma: float = 0.1
    compat: bool = False

    def __call__(self, step: int) -> float:
        """Rate of the optimiser step number ``step`` (the first is 0)."""
        if step < self.warmup:
            if self.compat:
                return self.base * (step / self.warmup if step else 1.0)
            return self.base * (step + 1) / self.warmup
        if self.kind == "multistep":
            drops = sum(step >= milestone for milestone in self.milestones)
            return float(self.base * self.gamma**drops)
        done = min(1.0, (step - self.warmup) / max(1, self.total - self.warmup))
        if self.kind == "cosine":
            return self.base * (1 + math.cos(math.pi * done)) / 2
        return float(self.base * (1 - done) ** self.power)


def make_schedule(config: OptimConfig, batch_size: int, steps_per_epoch: int, total: int) -> Schedule:
    """The schedule of a run; the rate is scaled from the reference batch to ``batch_size`` images a step."""
    return Schedule(
        base=config.lr * batch_size / config.reference_batch,
        total=total,
        warmup=duration_steps(config.warmup, steps_per_epoch, total),
        kind=config.schedule,
        power=config.power,
        milestones=tuple(duration_steps(text, steps_per_epoch, total) for text in config.milestones),
        gamma=config.gamma,
        compat=config.compat,
    )


def parameter_groups(module: nn.Module, weight_decay: float, compat: bool) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: with and without decay.

    Weights of norms, every vector and scalar (biases, PReLU slopes) do not decay, unless ``compat``.
    """
    no_decay = {id(p) for m in module.modules() if isinstance(m, _NORMS) for p in m.parameters(recurse=False)}
    with_decay: list[nn.Parameter] = []
    without: list[nn.Parameter] = []
    for parameter in module.parameters():
        if parameter.requires_grad:
            decays = compat or (parameter.ndim >= 2 and id(parameter) not in no_decay)
            (with_decay if decays else without).append(parameter)
    groups = [{"params": with_decay, "weight_decay": weight_decay}, {"params": without, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def make_optimizer(config: OptimConfig, *modules: nn.Module) -> torch.optim.Optimizer:
    """SGD or AdamW over the trainable parameters of ``modules``."""
    groups = [g for m in modules for g in parameter_groups(m, config.weight_decay, config.compat)]
    if config.name == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=True
    )
