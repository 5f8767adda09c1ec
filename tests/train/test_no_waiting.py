"""A forward and backward pass of a training reads nothing from the device; the loop does so once a step."""

from pathlib import Path

import pytest

from benchmarks.gpu_counts import META, Dispatched
from facescale.config import load_config
from facescale.data import open_reader
from facescale.distributed import Dist
from facescale.plan import make_plan
from facescale.run import RunDir
from facescale.train.build import build_task
from facescale.train.session import make_loader
from tests.tiny import TINY


@pytest.mark.parametrize("head", ["full", "partial_fc", "attfc", "f2c"])
def test_a_training_step_waits_for_nothing_but_the_agreement(head: str, tmp_path: Path) -> None:
    settings = [*TINY, f"head.name={head}", "train.precision=fp32"]
    config = load_config(None, settings)
    reader = open_reader(config.data.train)
    plan = make_plan(config, Dist(), reader)
    task = build_task(config, plan, Dist(device=META), tmp_path).to(META)
    batch = next(make_loader(config, plan, reader, task, RunDir(tmp_path)).epoch(0))
    task.train()
    for _ in range(2):
        task.begin_step(0.0, strength=1.0, loss_scale=1.0)
        with Dispatched() as seen:
            output = task(batch)
            output.loss.backward()
            task.is_finite()
            task.after_step(0.1)
        assert output.loss.device == META
    assert seen.total > 100
    assert seen.waiting == []
