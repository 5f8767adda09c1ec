"""Whole trainings: what they leave, that they go on where they stopped, that they stop when they must."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from facescale import load
from facescale.config import Config, load_config
from facescale.data import open_reader
from facescale.data.loading.train_loader import TrainLoader
from facescale.distributed import Dist
from facescale.evaluate.records import read_records
from facescale.inference.weights import read_card
from facescale.model_card import Threshold
from facescale.plan import make_plan
from facescale.run import RunDir
from facescale.train import task, train
from facescale.train.build import build_task
from tests.same_run import differences
from tests.tiny import TINY, train_steps


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    return load_file(RunDir(run).model_path(step))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_a_run_leaves_checkpoints_metrics_and_a_usable_model(tiny_run: Path) -> None:
    run = RunDir.open(tiny_run)
    assert run.steps()[-1] == 6
    kinds = [row["kind"] for row in run.read_metrics()]
    assert kinds.count("eval") == 2 and kinds[0] == "start"
    losses = [row["loss"] for row in run.read_metrics("train")]
    assert len(losses) == 3 and all(loss > 0 for loss in losses)
    assert {3, 6} <= {record.model.step for record in read_records(run.results)}
    best = run.best()
    assert best is not None and best["name"] == "unseen/accuracy"
    model = load(tiny_run)
    assert model.embed(torch.zeros(2, 32, 32, 3, dtype=torch.uint8)).shape == (2, 32)


def test_training_is_repeatable(tiny_config: Config, tiny_run: Path, tmp_path: Path) -> None:
    train(tiny_config, tmp_path / "again")
    assert same(weights(tiny_run, 6), weights(tmp_path / "again", 6))


@pytest.fixture(scope="module")
def thresholds() -> Iterator[None]:
    """A threshold from every evaluation; twenty pairs of so few people give no finite interval."""

    def drawn(results: Sequence[Any]) -> dict[float, Threshold]:
        (one,) = results
        return {0.1: Threshold(*[one.accuracy.mean] * 3, one.name)}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "thresholds_of", drawn)
        yield


@pytest.fixture(scope="module")
def whole(thresholds: None, tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    return train(tiny_config, tmp_path_factory.mktemp("whole") / "run").run.path


def interrupted(config: Config, run: Path, sittings: Sequence[int]) -> RunDir:
    """A finished run that was stopped after each of these numbers of steps."""
    for number, steps in enumerate(sittings, 1):
        stopped = train_steps(config, run, steps)
        assert not stopped.finished and stopped.step == sum(sittings[:number])
    assert train(config, run).finished
    return RunDir(run)


@pytest.mark.parametrize(
    "sittings",
    [[6], [3, 2], *(pytest.param([steps], marks=pytest.mark.slow) for steps in (1, 2, 3, 5))],
    ids=str,
)
def test_an_interrupted_run_leaves_the_same_files(
    tiny_config: Config, whole: Path, tmp_path: Path, sittings: list[int]
) -> None:
    """Evaluations are after steps 3 and 6, checkpoints also after 2 and 4, log lines after 2, 4 and 6."""
    run = interrupted(tiny_config, tmp_path / "run", sittings)
    assert same(weights(whole, 6), weights(run.path, 6))
    assert differences(whole, run.path) == []


def test_a_checkpoint_after_a_resume_has_the_thresholds_of_the_last_evaluation(
    thresholds: None, tiny_config: Config, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    train_steps(tiny_config, run.path, 4)
    train_steps(tiny_config, run.path, 1)
    before, after = (read_card(run.model_path(step)).thresholds for step in (4, 5))
    assert before and after == before


def test_an_evaluation_that_a_stop_came_before_is_made_up_for(
    thresholds: None, tiny_config: Config, tmp_path: Path
) -> None:
    run = RunDir(tmp_path / "run")
    assert train_steps(tiny_config, run.path, 3).metrics == {}
    assert run.read_metrics("eval") == [] and not read_card(run.model_path(3)).thresholds
    result = train_steps(tiny_config, run.path, 1)
    (line,) = run.read_metrics("eval")
    assert line["step"] == 3 and read_card(run.model_path(3)).thresholds
    assert result.metrics["unseen/accuracy"] == line["unseen/accuracy"]
    assert [record.model.step for record in read_records(run.results)][:1] == [3]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_with_a_checkpoint(
    tiny_run: Path, tmp_path: Path, number: signal.Signals
) -> None:
    def interrupt(values: dict[str, object], plan: object) -> None:
        if values["kind"] == "train" and values["step"] == 1:
            os.kill(os.getpid(), number)

    config = load_config(None, [*TINY, "train.log_every=1"])
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    try:
        stopped = train(config, tmp_path / "run", on_log=interrupt)
    except KeyboardInterrupt:
        pytest.fail("the signal ended the training at once")
    assert not stopped.finished and stopped.step == 2
    assert RunDir(tmp_path / "run").steps() == [2]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert train(config, tmp_path / "run").finished
    assert same(weights(tiny_run, 6), weights(tmp_path / "run", 6))
    steps = [row["step"] for row in RunDir(tmp_path / "run").read_metrics("train")]
    assert steps == [1, 2, 3, 4, 5, 6], "a resumed run repeats no line of its metrics"


def test_a_killed_run_continues_from_its_last_checkpoint(tiny_run: Path, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    settings = [part for setting in TINY for part in ("--set", setting)]
    command = [
        sys.executable,
        "-m",
        "facescale",
        "train",
        "--run",
        str(run.path),
        "--threads",
        "1",
        *settings,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not run.steps() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert run.steps()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert same(weights(tiny_run, 6), weights(run.path, 6))
    assert differences(tiny_run, run.path) == []


def test_an_interrupted_checkpoint_write_is_passed_over(tiny_config: Config, tmp_path: Path) -> None:
    train(tiny_config, tmp_path / "run")
    run = RunDir(tmp_path / "run")
    half = run.checkpoints / ".writing_9"
    half.mkdir()
    (half / "state.pt").write_bytes(b"half")
    assert run.steps()[-1] == 6
    run.prune(1)
    assert not half.exists()


def test_another_config_for_the_same_run_is_refused(tiny_config: Config, tiny_run: Path) -> None:
    changed = load_config(None, [*TINY, "optim.lr=0.2", "head.margin.m=0.2"])
    with pytest.raises(
        ValueError, match=r"other values of head\.margin\.m, optim\.lr; use another --run folder"
    ):
        train(changed, tiny_run)


def test_a_run_with_checkpoints_is_not_begun_again_by_mistake(tiny_config: Config, tiny_run: Path) -> None:
    with pytest.raises(ValueError, match="has checkpoints already; continue it, or use another --run folder"):
        train(tiny_config, tiny_run, resume=False)


def test_how_often_to_save_may_change_between_sittings(tiny_run: Path, tmp_path: Path) -> None:
    result = train(load_config(None, [*TINY, "checkpoint.keep=5", "data.workers=0"]), tiny_run)
    assert result.finished and result.step == 6


def test_steps_that_are_not_finite_are_skipped_and_then_stop_the_run(tmp_path: Path) -> None:
    settings = [
        *TINY,
        "optim.lr=1e30",
        "train.max_bad_steps=2",
        "train.clip_norm=0",
        "train.duration=20 steps",
    ]
    with pytest.raises(RuntimeError, match=r"2 steps in a row not finite.*lower optim\.lr"):
        train(load_config(None, settings), tmp_path / "run")
    bad = RunDir(tmp_path / "run").read_metrics("bad_step")
    assert len(bad) >= 2
    reader = open_reader("synthetic:ids=12,images=8,size=32")
    batches = list(TrainLoader(reader, batch_size=8, seed=0, size=32).epoch(0))
    for row in bad:
        assert row["first_images"] == [reader.key(i) for i in batches[row["step"] - 1].index[:4].tolist()]


def test_a_step_that_is_not_finite_leaves_no_trace_in_the_network(
    tiny_config: Config, tmp_path: Path
) -> None:
    reader = open_reader(tiny_config.data.train)
    task = build_task(tiny_config, make_plan(tiny_config, Dist(), reader), Dist(), tmp_path)
    batch = next(TrainLoader(reader, batch_size=8, seed=0, size=32).epoch(0))
    before = {key: value.clone() for key, value in task.backbone.state_dict().items()}
    task.begin_step(0.0, strength=1.0, loss_scale=1.0)
    batch.images.fill_(255)
    next(task.backbone.parameters()).data.fill_(float("nan"))
    assert not task(batch).loss.isfinite()
    task.skip_step()
    after = task.backbone.state_dict()
    statistics = [key for key in before if "running_" in key]
    assert statistics and all(torch.equal(before[key], after[key]) for key in statistics)


def test_accumulation_keeps_the_number_of_steps(tiny_config: Config, tmp_path: Path) -> None:
    result = train(load_config(None, [*TINY, "train.accumulate=2"]), tmp_path / "run")
    assert result.step == 6
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert (plan["process_batch"], plan["part_batch"]) == (8, 4)


@pytest.mark.parametrize(
    "settings",
    [
        ["head.name=partial_fc", "head.rate=0.5"],
        ["head.name=partial_fc", "head.rate=0.5", "head.placement=disk", "train.accumulate=2"],
        ["head.name=partial_fc", "head.rate=[0.3,0.6]", "head.placement=disk"],
        ["head.name=partial_fc", "head.rate=[0.6,1.0]", "head.decay=dense"],
        ["head.name=attfc", "head.share=1.0", "twin.schedule=warmup"],
        ["head.name=f2c", "head.share=1.0", "train.accumulate=2"],
        ["optim.name=adamw", "optim.lr=0.001", "head.margin.name=adaface", "train.ema=0"],
    ],
    ids=["partial_fc", "disk", "growing", "growing to all", "attfc", "f2c", "adamw"],
)
def test_every_head_trains_and_resumes_bit_for_bit(
    thresholds: None, tmp_path: Path, settings: list[str]
) -> None:
    config = load_config(None, [*TINY, *settings])
    assert train(config, tmp_path / "whole").finished
    interrupted(config, tmp_path / "cut", [3])
    assert same(weights(tmp_path / "whole", 6), weights(tmp_path / "cut", 6))
    assert differences(tmp_path / "whole", tmp_path / "cut") == []
