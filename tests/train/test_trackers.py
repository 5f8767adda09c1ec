"""Runs in Weights & Biases and MLflow: views of metrics.jsonl, by fakes of both and once for real."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from facescale.run import RunDir
from facescale.train.trackers import Tracking, numbers_of, track

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> RunDir:
    shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("features", "checkpoints"))
    return RunDir(tmp_path / "run")


class FakeWandb(ModuleType):
    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.finished = 0

    def init(self, **options: Any) -> "FakeWandb":
        self.started.append(options)
        return self

    def log(self, numbers: dict[str, float], step: int) -> None:
        assert not self.lines or step >= self.lines[-1][0]  # wandb drops steps that go back
        self.lines.append((step, numbers))

    def finish(self) -> None:
        self.finished += 1


class FakeMlflow(ModuleType):
    def __init__(self) -> None:
        super().__init__("mlflow")
        self.calls: dict[str, Any] = {}
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.known: list[Any] = []

    def set_tracking_uri(self, uri: str) -> None:
        self.calls["uri"] = uri

    def set_experiment(self, name: str) -> Any:
        self.calls["experiment"] = name
        return SimpleNamespace(experiment_id="7")

    def search_runs(self, experiments: list[str], query: str, output_format: str) -> list[Any]:
        assert experiments == ["7"] and output_format == "list" and query.startswith("tags.facescale_run = '")
        return self.known

    @contextmanager
    def start_run(self, **options: Any):  # type: ignore[no-untyped-def]
        self.calls["run"] = options
        yield self
        self.calls["ended"] = True

    def log_params(self, values: dict[str, Any]) -> None:
        self.calls["params"] = values

    def log_metrics(self, numbers: dict[str, float], step: int) -> None:
        self.lines.append((step, numbers))


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> FakeMlflow:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return fake


def test_only_numbers_of_a_line_are_shown_with_its_kind() -> None:
    line = {"kind": "eval", "step": 3, "time": 1.5, "lfw/accuracy": 0.9, "note": "text", "ok": True}
    assert numbers_of(line) == {"eval/lfw/accuracy": 0.9}


def test_every_line_of_a_run_is_shown_in_wandb(run: RunDir, wandb: FakeWandb) -> None:
    assert track(run.path, ["wandb"]) == len(run.read_metrics()) == len(wandb.lines)
    (options,) = wandb.started
    assert (options["project"], options["name"], options["resume"]) == ("facescale", "run", "allow")
    assert options["config"]["head.margin.scale"] == 16
    losses = [numbers["train/loss"] for _, numbers in wandb.lines if "train/loss" in numbers]
    assert losses == [row["loss"] for row in run.read_metrics("train")]
    assert wandb.finished == 1
    wandb.lines.clear()
    track(run.path, ["wandb"])
    assert wandb.started[0]["id"] == wandb.started[1]["id"]


def test_names_of_figures_become_names_that_mlflow_takes(run: RunDir, mlflow: FakeMlflow) -> None:
    run.log("eval", **{"step": 9, "lfw/tar@far=0.01": 0.5})
    track(run.path, ["mlflow"])
    assert mlflow.lines[-1] == (9, {"eval/lfw/tar_far_0.01": 0.5})
    assert (
        mlflow.calls["uri"] == f"sqlite:///{run.path / 'mlflow.db'}"
        and mlflow.calls["experiment"] == "facescale"
    )
    assert mlflow.calls["params"]["head.margin.scale"] == 16 and mlflow.calls["ended"]
    assert mlflow.calls["run"]["run_id"] is None


def test_a_run_that_mlflow_knows_is_continued(run: RunDir, mlflow: FakeMlflow) -> None:
    mlflow.known = [SimpleNamespace(info=SimpleNamespace(run_id="abc"))]
    track(run.path, ["mlflow"])
    assert mlflow.calls["run"]["run_id"] == "abc" and "params" not in mlflow.calls


def test_a_server_of_the_users_choice_is_left_alone(
    run: RunDir, mlflow: FakeMlflow, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:1")
    track(run.path, ["mlflow"])
    assert "uri" not in mlflow.calls


def test_a_tracker_that_is_not_installed_or_known_is_refused_before_training(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(
            ValueError, match=rf"{name} is not installed; .*pip install 'facescale\[{name}\]'"
        ):
            Tracking(run, [name])
    with pytest.raises(ValueError, match="wandbb"):
        Tracking(run, ["wandbb"])


def test_a_run_without_lines_is_refused(run: RunDir, wandb: FakeWandb) -> None:
    run.metrics.unlink()
    with pytest.raises(ValueError, match="has logged nothing yet; train it first"):
        track(run.path, ["wandb"])


def test_the_commands_show_metrics_during_training_and_afterwards(
    tmp_path: Path, wandb: FakeWandb, facescale: Command
) -> None:
    from tests.tiny import TINY

    settings = [
        word for one in [*TINY, "train.duration=2 steps", "eval.every=100%"] for word in ("--set", one)
    ]
    code, _, err = facescale(
        "train", "--run", str(tmp_path / "r"), *settings, "--device", "cpu", "--to", "wandb"
    )
    assert code == 0, err
    during = list(wandb.lines)
    assert len(during) == len(RunDir(tmp_path / "r").read_metrics()) and wandb.finished == 1
    wandb.lines.clear()
    code, out, err = facescale("track", str(tmp_path / "r"), "--to", "wandb")
    assert code == 0 and f"{len(during)} lines shown in wandb" in out, err
    code, _, err = facescale("track", str(tmp_path / "r"))
    assert code == 2 and "no tracker is named; give --to with one of: wandb, mlflow" in err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_the_real_packages_take_a_run_without_a_network(run: RunDir, name: str) -> None:
    pytest.importorskip(name)
    program = f"from facescale.train.trackers import track; track(r'{run.path}', ['{name}'])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "WANDB_MODE": "offline", "WANDB_SILENT": "true"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    stored = (
        list(run.path.glob("wandb/offline-run-*/*.wandb")) if name == "wandb" else [run.path / "mlflow.db"]
    )
    assert stored and all(path.stat().st_size > 0 for path in stored)
