"""Checkpoints that are written while the training goes on: the same files; errors reach it."""

import os
import signal
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from facescale import backbones
from facescale.config import load_config
from facescale.data import open_reader
from facescale.distributed import Dist
from facescale.plan import make_plan
from facescale.plan.advice import candidate
from facescale.plan.memory import backbone_bytes
from facescale.run import RunDir
from facescale.train import saver, train
from tests.distributed.spawn import run_processes
from tests.same_run import differences
from tests.wiring.toy import HEADS, SETTINGS, Toy, train_toy

BACKGROUND = "checkpoint.background=true"
WORDS = ["checkpoint.every=1 steps", "checkpoint.keep=3", "eval.every=3 steps", "train.ema=0.5"]


def different(one: RunDir, other: RunDir) -> list[str]:
    return [found for found in differences(one.path, other.path) if not found.startswith("config.toml")]


@pytest.mark.parametrize("head", HEADS)
def test_a_run_has_the_same_files_in_the_end(head: str, tmp_path: Path) -> None:
    words = [*WORDS, *HEADS[head]]
    at_once = train_toy(tmp_path / "at once", *words)
    later = train_toy(tmp_path / "later", *words, BACKGROUND)
    assert not different(at_once.run, later.run)
    assert later.run.steps()[-3:] == [4, 5, 6] and later.metrics == at_once.metrics


def test_the_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, seen = threading.Event(), []
    write = saver.save_tensors

    def waiting(tensors: Any, path: Path) -> Path:
        assert go_on.wait(60)
        return write(tensors, path)

    monkeypatch.setattr(saver, "save_tensors", waiting)

    def line(values: dict[str, Any], plan: object) -> None:
        if values["kind"] == "train" and values["step"] == 3:
            seen.append(RunDir(tmp_path / "run").steps())
            go_on.set()

    result = train_toy(tmp_path, "checkpoint.every=2 steps", BACKGROUND, on_log=line)
    assert seen == [[]], "step 3 is done before the checkpoint of step 2 has its name"
    assert result.run.steps() == [2, 4, 6]


def test_an_error_of_the_writer_ends_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(tensors: Any, path: Path) -> Path:
        raise OSError("the cable was pulled")

    monkeypatch.setattr(saver, "save_tensors", failing)
    with pytest.raises(OSError, match="the cable was pulled"):
        train_toy(tmp_path, "checkpoint.every=2 steps", BACKGROUND)
    assert not list(RunDir(tmp_path / "run").checkpoints.iterdir())


def test_a_run_that_is_stopped_has_its_last_checkpoint(tmp_path: Path) -> None:
    def line(values: dict[str, Any], plan: object) -> None:
        if values["kind"] == "train" and values["step"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    result = train_toy(tmp_path, BACKGROUND, on_log=line)
    assert not result.finished and result.run.steps() == [result.step]


def _train(dist: Dist, path: Path, words: list[str]) -> None:
    backbones.BACKBONES["toy"] = Toy
    train(load_config(None, [*SETTINGS, *WORDS, *words]), path, dist)


@pytest.mark.parametrize("head", ["host", "disk"])
def test_two_processes_write_the_same_files(head: str, tmp_path: Path) -> None:
    run_processes(2, partial(_train, path=tmp_path / "at once", words=HEADS[head]))
    run_processes(2, partial(_train, path=tmp_path / "later", words=[*HEADS[head], BACKGROUND]))
    assert not different(RunDir(tmp_path / "at once"), RunDir(tmp_path / "later"))


@pytest.mark.parametrize("head", HEADS)
def test_the_plan_knows_the_memory_of_the_copy(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied: list[int] = []
    prepare = saver.Saver._prepare

    def preparing(self: Any, pending: Any, content: Any) -> None:
        rows = content.rows(tmp_path, True)
        in_memory = 0 if head == "disk" else rows.num_bytes
        copied.append(content.num_bytes + in_memory)
        prepare(self, pending, content)

    monkeypatch.setattr(saver.Saver, "_prepare", preparing)
    words = [*WORDS, *HEADS[head], BACKGROUND]
    train_toy(tmp_path, *words)
    config = load_config(None, [*SETTINGS, *words])
    plan = make_plan(config, Dist(), open_reader(config.data.train))
    planned = candidate(config, plan, backbone_bytes(config, plan), None)
    assert planned.copy == pytest.approx(copied[-1], rel=0.05)
    assert "checkpoint copy" in planned.row()
    at_once = load_config(None, [*SETTINGS, *words[:-1]])
    alone = candidate(at_once, plan, backbone_bytes(config, plan), None)
    assert alone.copy == 0 and planned.total - alone.total == planned.copy
