import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from facescale.run import RunDir


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    made.create()
    return made


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a run folder"):
        RunDir.open(tmp_path)


def test_a_run_without_checkpoint_says_so(run: RunDir) -> None:
    with pytest.raises(ValueError, match="has no checkpoint yet; train it first"):
        run.model_path()


def test_the_best_checkpoint_is_kept_and_preferred(run: RunDir) -> None:
    for step, accuracy in ((10, 0.7), (20, 0.9), (30, 0.8), (40, 0.85)):
        run.snapshot(step).mkdir()
        run.keep_best(step, {"lfw/accuracy": accuracy, "lfw/auc": 1.0})
        run.prune(1)
    assert run.steps() == [20, 40]
    assert run.model_path().parent == run.snapshot(20)
    assert run.model_path("latest").parent == run.snapshot(40)
    with pytest.raises(ValueError, match=r"has no checkpoint 30; it has: best, latest, \[20, 40\]"):
        run.model_path(30)


def test_a_checkpoint_that_only_a_stop_asked_for_takes_no_place(run: RunDir) -> None:
    for step in (2, 4, 5):
        run.snapshot(step).mkdir()
    run.prune(2, interim=5)
    assert run.steps() == [4, 5], "the newest stays in any case"
    run.snapshot(6).mkdir()
    run.prune(2, interim=5)
    assert run.steps() == [4, 6]


def test_of_equal_checkpoints_the_later_is_the_best(run: RunDir) -> None:
    for step, accuracy in ((10, 0.7), (20, 0.9), (30, 0.9), (40, 0.8)):
        run.snapshot(step).mkdir()
        run.keep_best(step, {"lfw/accuracy": accuracy})
    assert run.best() == {"step": 30, "name": "lfw/accuracy", "value": 0.9}


def test_the_lowest_eer_is_the_best_and_without_accuracy_the_first_figure_decides(run: RunDir) -> None:
    for step, eer in ((10, 0.3), (20, 0.1), (30, 0.2)):
        run.keep_best(step, {"lfw/accuracy": eer, "lfw/eer": eer}, "lfw/eer")
    assert run.best() == {"step": 20, "name": "lfw/eer", "value": 0.1}
    run.best_file.unlink()
    for step, rank1 in ((10, 0.3), (20, 0.4), (30, 0.2)):
        run.keep_best(step, {"who/threshold@far=0.1": 1 / step, "who/rank1": rank1, "who/rank5": 1.0})
    assert run.best() == {"step": 20, "name": "who/rank1", "value": 0.4}


def test_a_good_checkpoint_stays_beside_later_ones_of_no_use(run: RunDir) -> None:
    for step in (1, 2, 3, 4):
        run.snapshot(step).mkdir()
    run.prune(1, good=2)
    assert run.steps() == [2, 4]


def test_a_rate_is_noted_for_one_checkpoint_only(run: RunDir) -> None:
    assert run.noted_rate(3) is None
    run.note_rate(3, 0.25)
    assert (run.noted_rate(3), run.noted_rate(4), run.noted_rate(0)) == (0.25, None, None)
    run.rate_file.write_text('{"step": 3, "rate_factor": 7}')
    with pytest.raises(
        ValueError, match=r"rate.json' is damaged \(it names no factor .*\); delete it to go on"
    ):
        run.noted_rate(3)


def test_checkpoints_are_set_aside_more_than_once(run: RunDir) -> None:
    for _ in range(2):
        for step in (1, 2):
            (run.snapshot(step) / "x").mkdir(parents=True, exist_ok=True)
        run.set_aside(after=1)
        assert run.steps() == [1]


def test_a_truncated_metrics_line_is_skipped_and_later_steps_are_forgotten(run: RunDir) -> None:
    run.log("train", step=1, loss=2.0)
    run.log("train", step=2, loss=1.0)
    with run.metrics.open("a") as file:
        file.write('{"kind": "tra')
    assert [row["step"] for row in run.read_metrics("train")] == [1, 2]
    run.truncate_metrics(1)
    assert [json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] == [1]


def test_what_a_killed_process_was_writing_is_removed(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    run.create()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    dead = [tmp_path / f".{ended.pid}.plan.json", run.results / f".{ended.pid}.x.json"]
    kept = [run.results / f".{os.getpid()}.y.json", tmp_path / ".lock", run.results / ".0.z.json"]
    for path in (*dead, *kept):
        path.write_text("{}")
    run.create()
    assert not any(path.exists() for path in dead) and all(path.exists() for path in kept)
