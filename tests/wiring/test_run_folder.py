"""What a training leaves in its folder, and when; and that an interruption leaves no trace in it."""

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from facescale import load
from facescale.evaluate.records import read_records
from facescale.run import RunDir
from facescale.train import TrainingError
from tests.wiring.toy import train_toy

_TIMES = ("time", "images_per_s", "wait_share", "seconds")


def test_lines_come_at_the_steps_of_log_every_and_at_the_end(tmp_path: Path) -> None:
    every = train_toy(tmp_path / "1", "train.duration=10 steps", "optim.lr=0.01").run.read_metrics("train")
    lines = train_toy(
        tmp_path / "4", "train.duration=10 steps", "optim.lr=0.01", "train.log_every=4"
    ).run.read_metrics("train")
    assert [line["step"] for line in lines] == [4, 8, 10]
    assert [line["epoch"] for line in lines] == [0.667, 1.333, 1.667]  # an epoch has 6 steps
    for line, steps in zip(lines, (range(4), range(4, 8), range(8, 10)), strict=True):
        mean = sum(every[step]["loss"] for step in steps) / len(steps)
        assert line["loss"] == pytest.approx(mean, rel=1e-4)
        assert line["lr"] == every[line["step"] - 1]["lr"]
        assert 0 <= line["wait_share"] <= 1 and line["images_per_s"] > 0


def test_a_skipped_step_is_no_part_of_the_mean_loss(tmp_path: Path) -> None:
    settings = ["train.log_every=3", "optim.lr=0.01", "train.duration=3 steps", "eval.every=3 steps"]
    (line,) = train_toy(tmp_path / "bad", *settings, "backbone.bad_at=1").run.read_metrics("train")
    assert 0 < line["loss"] < 20
    meta = json.loads((RunDir(tmp_path / "bad" / "run").snapshot(3) / "meta.json").read_text())
    assert (meta["step"], meta["bad_steps"], meta["bad_in_a_row"], meta["world_size"]) == (3, 1, 0, 1)
    assert 0 < meta["seconds"] < 60


def test_checkpoints_and_evaluations_come_when_the_config_says_and_old_ones_go(tmp_path: Path) -> None:
    run = train_toy(
        tmp_path,
        "train.duration=9 steps",
        "checkpoint.every=2 steps",
        "checkpoint.keep=3",
        "eval.every=3 steps",
    ).run
    best = run.best()
    assert best is not None and best["name"] == "unseen/accuracy"
    assert sorted({*run.steps(), best["step"]}) == sorted({6, 8, 9, best["step"]})
    rows = run.read_metrics("eval")
    assert [row["step"] for row in rows] == [3, 6, 9]
    assert best["value"] == max(row["unseen/accuracy"] for row in rows)
    assert best["step"] == max(row["step"] for row in rows if row["unseen/accuracy"] == best["value"])
    assert [record.model.step for record in read_records(run.results)] == [3, 6, 9]
    assert run.model_path().parent == run.snapshot(best["step"])


def test_the_best_checkpoint_stays_beside_the_newest_ones(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step, accuracy in ((1, 0.7), (2, 0.9), (3, 0.8), (4, 0.9), (5, None)):
        run.snapshot(step).mkdir(parents=True)
        run.keep_best(step, {} if accuracy is None else {"lfw/auc": 1 - accuracy, "lfw/accuracy": accuracy})
        run.prune(1)
    assert run.best() == {"step": 4, "name": "lfw/accuracy", "value": 0.9}
    assert run.steps() == [4, 5]


def test_the_result_says_where_what_and_how_well(tmp_path: Path) -> None:
    result = train_toy(tmp_path)
    (row,) = result.run.read_metrics("eval")
    assert (result.step, result.finished, result.run.path) == (6, True, tmp_path / "run")
    assert result.metrics and result.metrics.items() <= row.items()
    info = load(result.run.path, device="cpu").info
    assert (info["num_ids"], info["num_images"]) == (12, 96) and info["data"].startswith("synthetic:")


def test_steps_that_stay_bad_stop_the_run_and_leave_its_last_checkpoint(tmp_path: Path) -> None:
    settings = ["optim.lr=1e30", "train.clip_norm=0", "train.max_bad_steps=3", "train.duration=20 steps"]
    with pytest.raises(
        TrainingError, match=r"3 steps in a row not finite, up to step \d+, lr .*: lower optim"
    ):
        train_toy(tmp_path, *settings)
    bad = RunDir(tmp_path / "run").read_metrics("bad_step")
    assert len(bad) == 3 and all(
        re.match("nan|inf", row["loss"] + row["grad_norm"]) or row["loss"] for row in bad
    )


def contents(run: RunDir) -> dict[str, Any]:
    """All files of a run, without times and what is a folder's own."""
    found: dict[str, Any] = {}
    for path in sorted(run.path.rglob("*")):
        name = str(path.relative_to(run.path))
        if path.is_dir() or name.startswith("tensorboard/"):
            continue
        if path == run.metrics:
            rows = [row for row in run.read_metrics() if row["kind"] != "start"]
            found[name] = [{k: v for k, v in row.items() if k not in _TIMES} for row in rows]
        elif path.name == "meta.json":
            meta = json.loads(path.read_text())
            meta.pop("seconds")
            for key in ("waited", "seconds"):
                meta["window"].pop(key, None)
            found[name] = meta
        elif path.suffix == ".json" and path.parent == run.results:
            found[name] = {**json.loads(path.read_text()), "time": ""}
        elif path.name == "manifest.json":  # checksums, of meta.json too
            found[name] = list(json.loads(path.read_text())["files"])
        else:
            found[name] = path.read_bytes()
    return found


@pytest.mark.parametrize(
    "settings",
    [
        ["head.margin.name=elastic_cos", "head.margin.m=0.2", "train.ema=0.9", "backbone.dropout=0.3"],
        ["head.name=attfc", "head.share=1.0", "optim.name=adamw", "optim.lr=0.01"],
    ],
    ids=["random numbers", "attfc"],
)
def test_a_run_that_was_stopped_and_resumed_has_the_files_of_one_that_was_not(
    settings: list[str], tmp_path: Path
) -> None:
    def interrupt(line: dict[str, Any], plan: object) -> None:
        if line["kind"] == "train" and line["step"] == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    words = [
        *settings,
        "train.duration=8 steps",
        "train.log_every=4",
        "checkpoint.every=3 steps",
        "eval.every=3 steps",
        "eval.sets.unseen=synthetic:pairs=200",
    ]
    whole = train_toy(tmp_path / "whole", *words).run
    stopped = train_toy(tmp_path / "cut", *words, on_log=interrupt)
    assert stopped.step == 5 and not stopped.finished
    cut = train_toy(tmp_path / "cut", *words).run
    assert [row["step"] for row in cut.read_metrics("start")] == [0, 5]
    expected, found = contents(whole), contents(cut)
    assert expected.keys() == found.keys()
    assert [name for name in expected if expected[name] != found[name]] == []


def test_thresholds_stay_with_the_weights_between_two_evaluations(tmp_path: Path) -> None:
    def interrupt(line: dict[str, Any], plan: object) -> None:
        if line["kind"] == "train" and line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    words = ["eval.every=3 steps", "checkpoint.every=1 steps", "eval.sets.unseen=synthetic:pairs=200"]
    train_toy(tmp_path, *words, on_log=interrupt)
    run = train_toy(tmp_path, *words).run
    thresholds = [load(run.snapshot(step), device="cpu").thresholds for step in range(1, 7)]
    assert thresholds[0] == thresholds[1] == {}
    assert thresholds[2] == thresholds[3] == thresholds[4] != {}
    assert thresholds[5].keys() == thresholds[4].keys()


def test_a_run_that_was_killed_goes_on_from_its_newest_checkpoint_and_repeats_no_line(tmp_path: Path) -> None:
    words = ["checkpoint.every=2 steps"]
    run = train_toy(tmp_path, *words).run
    before = [row for row in run.read_metrics("train")]
    shutil.rmtree(run.snapshot(6))  # as if killed after the line of step 6, before its checkpoint
    half = run.checkpoints / ".writing_6"
    half.mkdir()
    (half / "state.pt").write_bytes(b"half")
    train_toy(tmp_path, *words)
    assert [row["step"] for row in run.read_metrics("start")] == [0, 4]
    after = run.read_metrics("train")
    assert [row["step"] for row in after] == list(range(1, 7))
    assert [row["loss"] for row in after] == [row["loss"] for row in before]
    assert run.steps() == [2, 4, 6] and not half.exists()
