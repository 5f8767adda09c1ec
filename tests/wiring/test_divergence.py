"""A training that diverges: what it saves, what it keeps, and how it goes back."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from facescale import backbones, margins
from facescale.config import load_config
from facescale.data import open_reader
from facescale.distributed import Dist
from facescale.evaluate.records import read_records
from facescale.plan import make_plan
from facescale.run import RunDir
from facescale.train import TrainingError, loop, train
from facescale.train.build import build_task
from facescale.train.session import make_loader, open_session
from tests.distributed.spawn import run_processes
from tests.wiring.toy import SETTINGS, Toy, saved_state, train_toy, weights

EXPLODING = ["optim.lr=1e30", "train.clip_norm=0", "train.duration=20 steps", "checkpoint.every=1 steps"]
GOING_BACK = [
    "backbone.bad_at=4",
    "train.roll_back_after=1",
    "train.duration=8 steps",
    "checkpoint.every=2 steps",
    "eval.sets={}",
]


def test_weights_of_no_use_are_not_saved_and_the_good_checkpoint_stays(tmp_path: Path) -> None:
    train_toy(tmp_path, "train.duration=3 steps", "checkpoint.every=1 steps", "eval.every=3 steps")
    words = [*EXPLODING, "checkpoint.keep=1", "train.max_bad_steps=6", "eval.every=1 steps"]
    run = RunDir(tmp_path / "run")
    before, metrics = run.best(), run.metrics.read_text()
    config = load_config(None, [*SETTINGS, *words])
    run.config.write_text(config.to_toml())  # as if it had been this rate from the start
    with pytest.raises(TrainingError, match=r"6 steps in a row .*--set train\.roll_back_after=5"):
        train(config, run.path)
    assert run.steps() == [1, 2, 3] and run.best() == before
    assert all(x.isfinite().all() for x in weights(run, 3).values())
    (*_, last) = run.read_metrics("health")
    assert "no checkpoint is written; the last good one is of step" in last["message"]
    assert run.metrics.read_text().startswith(metrics)


def test_a_run_that_ends_with_weights_of_no_use_fails(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"the weights are not finite at the end, step 3: lower optim.lr"):
        train_toy(tmp_path, *EXPLODING, "train.duration=3 steps")
    assert RunDir(tmp_path / "run").steps() == []


@pytest.mark.parametrize("settings", [EXPLODING, ["backbone.bad_at=1", "train.duration=2 steps"]])
def test_the_log_stays_json(settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    with suppress(TrainingError):
        train_toy(tmp_path, *settings)
    lines = (tmp_path / "run/metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]
    assert any(row["kind"] == "train" and row["loss"] is None and "loss" in row["not_finite"] for row in rows)


def test_a_dead_network_is_called_dead_and_any_other_is_better(tmp_path: Path) -> None:
    run = train_toy(tmp_path, "backbone.constant=true", "eval.every=3 steps").run
    messages = [row["message"] for row in run.read_metrics("health")]
    assert any(
        message.startswith("unseen: the network gives every image the same embedding") for message in messages
    )
    best = run.best()
    assert best is not None and (best["step"], best["dead"]) == (6, True), "the later one of two"
    run.keep_best(7, {"unseen/accuracy": 0.1})
    run.keep_best(8, {"unseen/accuracy": 0.9}, dead=True)
    assert run.best() == {"step": 7, "name": "unseen/accuracy", "value": 0.1}
    record = read_records(run.results)[-1]
    assert "it has not learnt yet (train longer), or it is dead" in record.result["notes"][-1]


# ---- going back -------------------------------------------------------------------------------------------


@contextmanager
def stopping_after(steps: int) -> Iterator[Callable[[], bool]]:
    calls = itertools.count(1)
    yield lambda: next(calls) == steps


def at_rates(
    path: Path, plan: list[tuple[int, float]], dist: Dist, monkeypatch: pytest.MonkeyPatch
) -> RunDir:
    """A run without a bad step, stopped and continued by hand: (steps, factor on the rate) per sitting."""
    config = load_config(None, [*SETTINGS, *GOING_BACK, "backbone.bad_at=-1"])
    for steps, factor in plan:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "stop_signals", lambda steps=steps: stopping_after(steps))
            loop._train(open_session(config, path, dist, None, True, factor))
    return RunDir(path)


def test_going_back_is_a_resume_at_a_lower_rate_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The network is bad in its fifth pass after a start: at step 5, from 2 on at step 7, from 4 on never."""
    run = train_toy(tmp_path, *GOING_BACK).run
    lines = run.read_metrics("roll_back")
    assert [(row["step"], row["diverged_at"], row["rate_factor"]) for row in lines] == [
        (2, 5, 0.5),
        (4, 7, 0.25),
    ]
    assert "diverged at step 7; going on from step 4 with 0.25 times the scheduled" in lines[1]["message"]
    assert run.read_metrics("bad_step") == [] and run.steps()[-1] == 8
    rates = [row["lr"] for row in run.read_metrics("train")]
    expected = [0.2 * (1 - step / 8) * (1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25)[step] for step in range(8)]
    assert rates == pytest.approx(expected)
    other = at_rates(tmp_path / "other", [(2, 1.0), (2, 0.5), (9, 0.25)], Dist(), monkeypatch)
    for found, wanted in ((weights(run, 8), weights(other, 8)), (saved_state(run, 8), saved_state(other, 8))):
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in found)


def test_a_run_killed_after_going_back_does_the_same_again(tmp_path: Path) -> None:
    whole = train_toy(tmp_path / "whole", *GOING_BACK).run

    def die(line: dict[str, Any], plan: object) -> None:
        if line["kind"] == "roll_back":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path / "cut", *GOING_BACK, on_log=die)
    cut = train_toy(tmp_path / "cut", *GOING_BACK).run
    assert all(torch.equal(x, weights(cut, 8)[name]) for name, x in weights(whole, 8).items())


def test_without_a_good_checkpoint_it_goes_back_to_the_start_and_gives_up_at_a_thousandth(
    tmp_path: Path,
) -> None:
    words = [*EXPLODING, "train.roll_back_after=2", "train.roll_back_rate=0.05"]
    message = r"the training diverges after step 0 even at 0.0025 times its learning rate: check the labels"
    with pytest.raises(TrainingError, match=message):
        train_toy(tmp_path, *words)
    lines = RunDir(tmp_path / "run").read_metrics("roll_back")
    assert [row["step"] for row in lines] == [0, 0]
    assert [row["rate_factor"] for row in lines] == pytest.approx([0.05, 0.0025])


def test_a_diverged_run_is_rescued_by_going_back(tmp_path: Path) -> None:
    words = [
        "train.max_bad_steps=1",
        "backbone.bad_at=4",
        "train.duration=8 steps",
        "checkpoint.every=2 steps",
    ]
    with pytest.raises(TrainingError):
        train_toy(tmp_path, *words)
    assert RunDir(tmp_path / "run").steps()[-1] == 4
    result = train_toy(tmp_path, *words, "train.roll_back_after=1")
    assert result.finished and result.step == 8


def test_the_options_of_going_back_are_checked() -> None:
    with pytest.raises(ValueError, match=r"30 is never reached, as train.max_bad_steps = 20 stops the run"):
        load_config(None, ["train.roll_back_after=30"])
    from facescale.plan.check import read_config

    with pytest.raises(ValueError, match=r"has no effect with train.roll_back_after = 0; take it out"):
        read_config(None, ["train.roll_back_rate=0.3"])


def _go_back(dist: Dist, path: Path) -> None:
    backbones.BACKBONES["toy"] = Toy
    words = [*SETTINGS, *GOING_BACK, "backbone.bad_at=-1"]
    bad = load_config(None, [*words, f"backbone.bad_at={4 if dist.rank else -1}"])  # on one of them only
    good = load_config(None, words)
    with pytest.MonkeyPatch.context() as patch:
        session = loop.open_session

        def opened(config: Any, *rest: Any) -> Any:
            result = session(good, *rest)
            result.task.backbone.bad_at = bad.backbone.options["bad_at"]
            return result

        patch.setattr(loop, "open_session", opened)
        assert train(good, path / "run", dist).step == 8
        patch.undo()
        other = at_rates(path / "other", [(2, 1.0), (2, 0.5), (9, 0.25)], dist, patch)
    if dist.is_main:
        run = RunDir(path / "run")
        assert [row["diverged_at"] for row in run.read_metrics("roll_back")] == [5, 7]
        assert all(torch.equal(x, weights(other, 8)[name]) for name, x in weights(run, 8).items())


def test_processes_go_back_together(tmp_path: Path) -> None:
    run_processes(2, _go_back, tmp_path)


# ---- a skipped step ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "margin"),
    [
        *(("full", name) for name in margins.MARGINS if name != "unitsface"),
        ("partial_fc", "cosface"),
        ("attfc", "cosface"),
        ("f2c", "cosface"),
    ],
)
def test_a_step_with_bad_pixels_leaves_no_mark(head: str, margin: str, tmp_path: Path) -> None:
    """Backbone, twin, head and margin are what they were, counters of batch norm and of random draws too."""
    usual = [word for word in SETTINGS if not word.startswith("head.margin.m=")]
    words = [*usual, f"head.name={head}", f"head.margin.name={margin}"]
    if head in ("attfc", "f2c"):
        words.append("head.share=1.0")
    config = load_config(None, words)
    reader = open_reader(config.data.train)
    plan = make_plan(config, Dist(), reader)
    task = build_task(config, plan, Dist(), tmp_path)
    loader = make_loader(config, plan, reader, task, RunDir(tmp_path / "run"))
    task.train()
    batches = loader.epoch(0, 0)
    augment = task._augment
    for step in range(3):
        task.begin_step(step / 6, 1.0, 1.0)
        before = {name: x.clone() for name, x in task.state_dict().items() if isinstance(x, torch.Tensor)}
        if step == 2:
            task._augment = lambda x, random: augment(x, random) * torch.nan  # type: ignore[assignment]
        output = task(next(batches))
        output.loss.backward()
        if step < 2:
            task.after_step(0.1)
            continue
        assert not output.loss.isfinite()
        task.skip_step()
    after = task.state_dict()
    assert [name for name, x in before.items() if not torch.equal(x, after[name])] == []
    batches.close()
    shutil.rmtree(tmp_path, ignore_errors=True)
