"""What a training does beside its arithmetic: scaling, hints, signals, thresholds, learned margins."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facescale import load, margins
from facescale.run import RunDir
from tests.wiring.toy import saved_state, train_toy, weights


def same(a: dict[str, Tensor], b: dict[str, Tensor], tolerance: float = 0.0) -> bool:
    return a.keys() == b.keys() and all(
        torch.allclose(a[key].double(), b[key].double(), rtol=tolerance, atol=tolerance) for key in a
    )


@pytest.fixture
def scalers(monkeypatch: pytest.MonkeyPatch) -> list[torch.amp.GradScaler]:
    """Those that trainings make, switched on: fp16 needs a GPU, but its scaler works with fp32 as well."""
    scaler, made = torch.amp.GradScaler, []

    def switched_on(*args: Any, **options: Any) -> torch.amp.GradScaler:
        made.append(scaler(*args, **{**options, "enabled": True}))
        return made[-1]

    monkeypatch.setattr(torch.amp, "GradScaler", switched_on)
    return made


@pytest.mark.parametrize("head", ["full", "partial_fc"])
def test_a_scaled_loss_moves_networks_and_centres_as_an_unscaled_one(
    head: str, scalers: list[torch.amp.GradScaler], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = [f"head.name={head}", "train.accumulate=2"]
    scaled = train_toy(tmp_path / "scaled", *settings).run
    assert scalers[0].get_scale() > 1
    monkeypatch.undo()
    plain = train_toy(tmp_path / "plain", *settings).run
    assert len(scalers) == 1
    assert same(weights(scaled, 6), weights(plain, 6), 1e-5)
    losses = [[row["loss"] for row in run.read_metrics("train")] for run in (plain, scaled)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # which later steps owe to the centres, too


def test_a_loss_scale_that_was_halved_stays_so_after_a_resume(
    scalers: list[torch.amp.GradScaler], tmp_path: Path
) -> None:
    def interrupt(line: dict[str, Any], plan: object) -> None:
        if line["kind"] == "train" and line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    train_toy(tmp_path, "backbone.bad_at=1", on_log=interrupt)
    train_toy(tmp_path, "backbone.bad_at=1", "train.log_every=2")
    first, second = scalers
    assert first.get_scale() == 512.0  # from 1024
    # the resumed network counts its passes anew, so that its second one is bad again
    assert second.get_scale() == 256.0


def test_a_training_that_learns_nothing_says_so_once(tmp_path: Path) -> None:
    run = train_toy(tmp_path, "optim.lr=1e-7").run
    (line,) = run.read_metrics("health")
    assert line["step"] == 2, "the hint waits for 30 % of the run"
    assert "optim.lr" in line["message"] and "ln 12 = 2.5" in line["message"]


def test_collapsed_embeddings_are_named(tmp_path: Path) -> None:
    run = train_toy(tmp_path, "optim.lr=1e-7", "backbone.constant=true").run
    assert "the embeddings look collapsed" in run.read_metrics("health")[0]["message"]


def test_a_hint_goes_to_whoever_follows_the_log(tmp_path: Path) -> None:
    kinds: list[str] = []
    train_toy(tmp_path, "optim.lr=1e-7", on_log=lambda line, plan: kinds.append(line["kind"]))
    assert kinds == ["start", "train", "train", "health", *["train"] * 4, "eval"]


def test_thresholds_of_the_first_protocol_travel_with_the_weights(tmp_path: Path) -> None:
    run = train_toy(
        tmp_path, "eval.sets.unseen=synthetic:pairs=200", "eval.sets.other=synthetic:pairs=40"
    ).run
    (line,) = run.read_metrics("eval")
    thresholds = load(run.path, device="cpu").thresholds
    assert {far: one.cosine for far, one in thresholds.items()} == {0.1: line["unseen/threshold@far=0.1"]}
    assert thresholds[0.1].on == "unseen"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_training_after_the_step_with_a_checkpoint(
    number: signal.Signals, tmp_path: Path
) -> None:
    def interrupt(line: dict[str, Any], plan: object) -> None:
        if line["kind"] == "train" and line["step"] == 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    result = train_toy(tmp_path, on_log=interrupt)
    assert (result.step, result.finished, result.run.steps()) == (3, False, [3])
    assert signal.getsignal(number) is before, "the handler of the caller is back"
    assert train_toy(tmp_path).finished


def test_a_second_signal_ends_it_at_once(tmp_path: Path) -> None:
    def interrupt(line: dict[str, Any], plan: object) -> None:
        if line["kind"] == "train":
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train_toy(tmp_path, on_log=interrupt)
    assert RunDir(tmp_path / "run").steps() == []


@pytest.mark.parametrize("name", [name for name in margins.MARGINS if list(margins.build(name).parameters())])
def test_learned_parameters_of_a_margin_move(name: str, tmp_path: Path) -> None:
    run = train_toy(
        tmp_path,
        f"head.margin.name={name}",
        "head.margin.m=0.1",
        "checkpoint.every=1 steps",
        "optim.momentum=0",
    ).run
    states = [saved_state(run, step) for step in (1, 2, 6)]
    keys = [key for key in states[0] if key.startswith("task.head.margin.")]
    assert keys
    learned = [name for name, _ in margins.build(name).named_parameters()]
    for key in keys:
        if any(key.endswith(f".{one}") for one in learned):
            assert len({float(state[key]) for state in states}) == 3, f"{key} stays"


@pytest.mark.parametrize(
    "settings",
    [
        ["head.store_dtype=bfloat16"],
        ["head.store_dtype=float16", "head.name=partial_fc", "head.rate=0.5"],
        ["head.store_dtype=bfloat16", "head.name=partial_fc", "head.rate=0.5", "head.placement=host"],
        ["train.ema=0.9", "train.accumulate=2", "head.margin.name=curricular", "head.margin.m=0.1"],
        ["head.margin.name=unitsface", "head.margin.m=0.1", "optim.name=adamw", "optim.lr=0.01"],
        ["head.name=attfc", "head.share=1.0", "twin.schedule=warmup"],
        ["head.name=f2c", "head.share=1.0", "twin.schedule=cosine"],
    ],
    ids=["bfloat16 rows", "float16 rows", "host", "ema", "adamw", "attfc", "f2c"],
)
def test_a_training_that_was_interrupted_leaves_the_same_state(settings: list[str], tmp_path: Path) -> None:
    """Rounding, moving averages, twin, statistics and optimizer go on where they were."""

    def interrupt(line: dict[str, Any], plan: object) -> None:
        if line["kind"] == "train" and line["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = train_toy(tmp_path / "whole", *settings).run
    assert not train_toy(tmp_path / "cut", *settings, on_log=interrupt).finished
    cut = train_toy(tmp_path / "cut", *settings).run
    assert same(weights(whole, 6), weights(cut, 6))
    assert same(saved_state(whole, 6), saved_state(cut, 6))
    files = [path.relative_to(whole.snapshot(6)) for path in whole.snapshot(6).rglob("*") if path.is_file()]
    rows = [path for path in files if path.parent.name == "centres" or path.name.startswith("slots_")]
    assert rows
    for path in rows:
        assert (whole.snapshot(6) / path).read_bytes() == (cut.snapshot(6) / path).read_bytes(), path


def test_settings_of_a_config_cannot_change_between_sittings_except_those_that_change_nothing(
    tmp_path: Path,
) -> None:
    train_toy(tmp_path)
    with pytest.raises(ValueError, match=r"started with other values of train\.seed"):
        train_toy(tmp_path, "train.seed=1")
    assert train_toy(tmp_path, "data.workers=1", "train.log_every=3").finished
