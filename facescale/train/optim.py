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
