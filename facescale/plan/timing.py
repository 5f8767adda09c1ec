"""Estimate the time of a step from a few seconds of the real network and a smaller head."""

from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic

import torch

from facescale import backbones
from facescale.config import Config
from facescale.distributed import Dist
from facescale.heads import Needs
from facescale.ops import autocast
from facescale.plan.components import head_options, head_skeleton
from facescale.plan.measure import Case, measure_head
from facescale.plan.memory import skeleton_of
from facescale.plan.plan import Plan

CALIBRATION = 2.0  # seconds

_FEW_CLASSES, _FEW_IDS, _FEW_IMAGES = 10_000, 100_000, 128  # that time is estimated from


def backbone_seconds(config: Config, plan: Plan, needs: Needs) -> float:
    """Seconds that the network takes in an optimizer step, from training it on noise for about two seconds.

    Args:
        config: of the run.
        plan: of the run.
        needs: of the head.
    """
    device = torch.device(plan.device)
    net = backbones.build(config.backbone.name, config.backbone.embedding_size, **config.backbone.options)
    net = net.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    batch = min(8, plan.part_batch)
    side = int(net.input_size)
    images = torch.randn(batch, 3, side, side, device=device).contiguous(memory_format=torch.channels_last)

    def once() -> None:
        with autocast(device, plan.precision):
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
    return one_image * plan.process_batch * passes(needs)


def passes(needs: Needs) -> float:
    """What the views of an item cost, in views that are trained on; a view through the twin costs a third."""
    return needs.query_views + needs.key_views / 3


def head_seconds(config: Config, plan: Plan) -> list[tuple[str, float]]:
    """Seconds that the head takes in an optimizer step, from a few steps of a smaller one.

    Time is taken to grow with the batch and the classes that a step compares with.

    Returns:
        One time, with an empty name. Several Partial FC rates, which take turns in equal parts of a training,
        have one each ("rate 0.1").
    """
    rates = config.head.options.get("rate")
    if not isinstance(rates, list):
        return [("", _one_head_seconds(config, plan))]
    return [(f"rate {rate:g}", _one_head_seconds(_at_rate(config, rate), plan)) for rate in rates]


def _at_rate(config: Config, rate: float) -> Config:
    head = config.head.model_copy(update={"rate": rate})
    return config.model_copy(update={"head": head})


def _one_head_seconds(config: Config, plan: Plan) -> float:
    real, batch = skeleton_of(config, plan), plan.part_batch * plan.world_size
    here = plan.num_ids // plan.world_size
    few = min(here, here * _FEW_CLASSES // real.num_compared(batch), _FEW_IDS)
    few, part = max(2, few), min(batch, _FEW_IMAGES)
    spec, margin = config.backbone, config.head.margin.name
    name, threads = config.head.name, torch.get_num_threads()
    with TemporaryDirectory() as folder:
        options = head_options(config, Path(folder))
        case = Case(name, options, few, spec.embedding_size, part, margin, plan.device, 1.0, threads)
        seconds, _ = measure_head(case)
    dist = Dist(device=torch.device(plan.device))
    small = head_skeleton(name, few, spec.embedding_size, margin, dist, **options)
    larger = real.num_compared(batch) / small.num_compared(part) * batch / part
    return seconds * larger * config.train.accumulate
