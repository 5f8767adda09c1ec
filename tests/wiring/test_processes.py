"""Two processes against the plain loop on one: DDP averages gradients, centres are divided, batches too."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from facescale import backbones, heads
from facescale.config import load_config
from facescale.distributed import Dist
from facescale.evaluate import shares
from facescale.run import RunDir
from facescale.train import train
from facescale.train.task import RecognitionTask
from tests.distributed.spawn import run_processes
from tests.same_run import differences
from tests.wiring.plain import Case, plain_training
from tests.wiring.toy import IDS, SETTINGS, D, Toy, saved_state, weights

SPLIT = ["optim.weight_decay=0.05", "train.clip_norm=1.0", "head.margin.ramp=4 steps", "train.seed=2"]
# Each process has half of a batch, as each of two accumulated parts has: batch norm sees the same images
CASE = Case(parts=2, weight_decay=0.05, clip=1.0, ramp=4, seed=2)


def _train(dist: Dist, path: Path, settings: list[str], interrupted: bool) -> None:
    backbones.BACKBONES["toy"] = Toy

    def interrupt(line: dict[str, Any], plan: object) -> None:
        if line["kind"] == "train" and line["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)  # of the main process only

    config = load_config(None, [*SETTINGS, *settings])
    result = train(config, path, dist, on_log=interrupt if interrupted else None)
    assert result.finished is not interrupted
    assert result.step == (3 if interrupted else 6), "all processes stop after the same step"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    path = tmp_path_factory.mktemp("two") / "run"
    run_processes(2, _train, path, SPLIT, False)
    return RunDir(path)


def test_two_processes_learn_what_one_with_two_parts_learns(run: RunDir) -> None:
    trace = plain_training(load_config(None, [*SETTINGS, *SPLIT]), CASE)
    rows = run.read_metrics("train")
    for name in ("loss", "grad_norm", "lr"):
        assert [row[name] for row in rows] == pytest.approx(getattr(trace, name), rel=2e-4, abs=1e-5)
    saved = weights(run, 6)
    for name, expected in trace.evaluated.items():
        if "running" not in name and "tracked" not in name:  # the main process has seen its own halves only
            torch.testing.assert_close(saved[name], expected, rtol=2e-4, atol=1e-5)
    head = heads.build("full", IDS, D, "cosface")
    head.load_rows(run.snapshot(6))
    rows_CD = head.read_rows(torch.arange(IDS))  # type: ignore[operator]
    torch.testing.assert_close(rows_CD, trace.centres_CD, rtol=2e-4, atol=1e-5)


def test_two_processes_stop_together_and_go_on(run: RunDir, tmp_path: Path) -> None:
    run_processes(2, _train, tmp_path / "run", SPLIT, True)
    run_processes(2, _train, tmp_path / "run", SPLIT, False)
    cut = RunDir(tmp_path / "run")
    assert all(torch.equal(x, weights(cut, 6)[name]) for name, x in weights(run, 6).items())
    for name, x in saved_state(run, 6).items():
        assert torch.equal(x, saved_state(cut, 6)[name])
    names = {path.name for path in run.snapshot(6).iterdir()}
    assert {"random_0.pt", "random_1.pt"} <= names


def _count_exchanges(dist: Dist, folder: str, parts: int) -> None:
    backbones.BACKBONES["toy"] = Toy
    calls = []

    class Counted(DistributedDataParallel):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.register_comm_hook(None, lambda _, bucket: calls.append(1) or allreduce_hook(None, bucket))

    patch = pytest.MonkeyPatch()
    patch.setattr("facescale.train.build.DistributedDataParallel", Counted)
    settings = [*SETTINGS, "train.batch_size=12", f"train.accumulate={parts}", "eval.sets={}"]
    path = Path(folder, f"{dist.world_size}")
    train(load_config(None, settings), path, dist)
    assert len(calls) == (6 if dist.world_size > 1 else 0), "one bucket, six steps"


def test_gradients_are_exchanged_once_a_step_and_are_those_of_one_process(tmp_path: Path) -> None:
    for world_size in (1, 2, 3):  # batch norm sees the same two images in each of six parts
        run_processes(world_size, _count_exchanges, str(tmp_path), 6 // world_size)
    alone = RunDir(tmp_path / "1")
    for world_size in (2, 3):
        run = RunDir(tmp_path / f"{world_size}")
        for name in ("loss", "grad_norm"):
            figures = [[row[name] for row in one.read_metrics("train")] for one in (run, alone)]
            assert figures[0] == pytest.approx(figures[1], rel=2e-4, abs=1e-5)
        for name, expected in weights(alone, 6).items():
            if "running" not in name and "tracked" not in name:
                torch.testing.assert_close(weights(run, 6)[name], expected, rtol=2e-4, atol=1e-5)


def _stop_in_evaluation(dist: Dist, folder: Path) -> None:
    backbones.BACKBONES["toy"] = Toy
    settings = ["eval.every=3 steps", "eval.batch_size=4", "checkpoint.every=3 steps", "train.ema=0.5"]
    config = load_config(None, [*SETTINGS, *settings])
    train(config, folder / "whole", dist)
    calls: list[int] = []
    embed = RecognitionTask.embed

    def killed(self: RecognitionTask, images: Any) -> Any:
        calls.append(1)
        if dist.rank == 1 and len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)  # as torchrun or a scheduler does, to one process only
        return embed(self, images)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecognitionTask, "embed", killed)
        patch.setattr(shares, "ROUND", 1)
        result = train(config, folder / "cut", dist)
    assert not result.finished and result.step == 3
    assert len(calls) <= 6, "of five batches, two views of each, and a check in each round"
    if dist.is_main:
        run = RunDir(folder / "cut")
        assert run.steps() == [3] and run.read_metrics("eval") == []
    dist.barrier()
    assert train(config, folder / "cut", dist).finished


def test_sigterm_acts_within_an_evaluation_on_all_processes(tmp_path: Path) -> None:
    run_processes(2, _stop_in_evaluation, tmp_path)
    assert differences(tmp_path / "whole", tmp_path / "cut") == []
