"""The training loop once more, in plain torch: dense class centres, autograd, torch.optim and nothing else.

From the package it takes the first weights, the first centres and the batches. All else (margin, softmax,
parameter groups, schedule, accumulation, clipping, moving average) is written out here.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale import backbones, heads
from facescale.config import Config
from facescale.data import open_reader
from facescale.data.loading.batch import Batch
from facescale.data.loading.train_loader import TrainLoader
from tests.wiring.toy import IDS, SIZE, D

# B batch, C classes, D embedding size


@dataclass
class Case:
    """What the config of a case says, in numbers."""

    steps: int = 6
    batch: int = 16
    parts: int = 1
    seed: int = 0
    scale: float = 16.0
    m: float = 0.2
    ramp: int = 0
    lr: float = 0.2  # 0.4 at the reference batch of 32, for 16 images
    warmup: int = 0
    power: float = 1.0
    optimizer: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 5e-4
    clip: float = 5.0
    ema: float = 0.0
    skipped: int = -1  # this step has infinite embeddings
    loss_scale: float = 1.0


@dataclass
class Trace:
    """What happened, step by step, and what was there in the end."""

    loss: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    index: list[list[int]] = field(default_factory=list)
    trained: dict[str, Tensor] = field(default_factory=dict)
    evaluated: dict[str, Tensor] = field(default_factory=dict)
    centres_CD: Tensor = field(default_factory=lambda: torch.empty(0))


def batches_of(config: Config, case: Case) -> Iterator[Batch]:
    """The batches of a run, in its order."""
    reader = open_reader(config.data.train)
    loader = TrainLoader(reader, batch_size=case.batch, seed=case.seed, size=SIZE, workers=0)
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


def make_optimizer(case: Case, net: nn.Module, w_CD: Tensor) -> torch.optim.Optimizer:
    """Weights of products and centres decay; norms, biases and PReLU do not."""
    decays = [net.get_parameter(name) for name in ("features.0.weight", "fc.weight")]
    free = [p for p in net.parameters() if all(p is not one for one in decays)]
    groups = [
        {"params": [*decays, w_CD], "weight_decay": case.weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
    if case.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=1.0, betas=case.betas)
    return torch.optim.SGD(groups, lr=1.0, momentum=case.momentum, nesterov=case.nesterov)


def rate(case: Case, step: int) -> float:
    """Linear warm-up, then polynomial decay."""
    if step < case.warmup:
        return case.lr * (step + 1) / case.warmup
    return case.lr * (1 - (step - case.warmup) / (case.steps - case.warmup)) ** case.power


def loss_of(case: Case, x_BD: Tensor, w_CD: Tensor, id_B: Tensor, step: int) -> tuple[Tensor, Tensor]:
    """CosFace: softmax cross-entropy of s (cos - m on the own class); and the mean cosine to that class."""
    strength = min(1.0, (step + 1) / case.ramp) if case.ramp else 1.0
    cos_BC = F.normalize(x_BD) @ F.normalize(w_CD).T
    logits_BC = case.scale * (cos_BC - case.m * strength * F.one_hot(id_B, len(w_CD)))
    return F.cross_entropy(logits_BC, id_B), cos_BC[torch.arange(len(id_B)), id_B].mean()


def plain_training(config: Config, case: Case) -> Trace:
    """Train as ``config`` says, of which ``case`` repeats the numbers."""
    torch.manual_seed(case.seed)
    net = backbones.build("toy", D)
    head = heads.build("full", IDS, D, "cosface", seed=case.seed)
    w_CD = nn.Parameter(head.read_rows(torch.arange(IDS)).clone())  # type: ignore[operator]
    average = copy.deepcopy(net)
    optimizer = make_optimizer(case, net, w_CD)
    trace, updates = Trace(), 0
    net.train()
    for step, batch in zip(range(case.steps), batches_of(config, case), strict=False):
        statistics = {name: x.clone() for name, x in net.named_buffers()}
        losses, cosines, norms = [], [], []
        size = case.batch // case.parts
        for start in range(0, case.batch, size):
            part = slice(start, start + size)
            x = (batch.images[0, part].float() - 127.5) / 127.5
            x_BD = net(x.permute(0, 3, 1, 2))
            loss, cosine = loss_of(case, x_BD, w_CD, batch.ids[part], step)
            (loss / case.parts).backward()
            losses.append(loss.item())
            cosines.append(cosine.item())
            norms.append(x_BD.detach().norm(dim=1).mean().item())
        norm = nn.utils.clip_grad_norm_(net.parameters(), case.clip or float("inf"))
        for group in optimizer.param_groups:
            group["lr"] = rate(case, step)
        if step == case.skipped:
            for name, x in net.named_buffers():
                if x.is_floating_point():
                    x.copy_(statistics[name])
        else:
            optimizer.step()
            updates += 1
            decay = min(case.ema, updates / (9 + updates))
            with torch.no_grad():
                for mean, now in zip(average.parameters(), net.parameters(), strict=True):
                    mean.copy_(decay * mean + (1 - decay) * now)
                for mean, now in zip(average.buffers(), net.buffers(), strict=True):
                    mean.copy_(now)
        optimizer.zero_grad()
        trace.loss.append(sum(losses) / case.parts)
        trace.cosine.append(sum(cosines) / case.parts)
        trace.norm.append(sum(norms) / case.parts)
        trace.grad_norm.append(norm.item())
        trace.lr.append(rate(case, step))
        trace.index.append(batch.index.tolist())
    trace.trained, trace.centres_CD = net.state_dict(), w_CD.detach()
    trace.evaluated = (average if case.ema else net).state_dict()
    return trace
