"""Checkpoint and evaluation of a step: the checkpoint first, and on all processes together."""

import json
from pathlib import Path
from typing import Any

import pytest

from facescale.config import Config, load_config
from facescale.distributed import Dist
from facescale.evaluate.records import read_records
from facescale.evaluate.run_protocols import evaluate as evaluate_command
from facescale.evaluate.verification import Verification
from facescale.run import RunDir
from facescale.train import train
from tests.distributed.spawn import run_processes
from tests.same_run import differences
from tests.tiny import TINY


class KilledError(BaseException):
    """Stands for a kill: nothing catches it."""


def test_a_kill_in_an_evaluation_loses_nothing(
    tiny_config: Config, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure, run = Verification.measure, RunDir(tmp_path / "run")
    for step, survived in ((3, 0), (3, 0), (6, 1)):  # evaluations that this sitting ends before it is killed
        left = [None] * survived

        def killed(self: Verification, *args: Any, left: list[None] = left) -> Any:
            if not left:
                raise KilledError
            left.pop()
            return measure(self, *args)

        with monkeypatch.context() as patch, pytest.raises(KilledError):
            patch.setattr(Verification, "measure", killed)
            train(tiny_config, run.path)
        assert run.steps()[-1] == step, "the checkpoint of the evaluated step is there"
        assert [row["step"] for row in run.read_metrics("eval")] == [3] * survived
    train(tiny_config, run.path)
    assert differences(tiny_run, run.path) == []
    assert run.best() == RunDir(tiny_run).best()


def _train_and_evaluate(dist: Dist, folder: str) -> None:
    config = load_config(None, [*TINY, "train.ema=0", "train.precision=fp32", "eval.batch_size=8"])
    result = train(config, Path(folder, "run"), dist)
    assert bool(result.metrics) == dist.is_main
    page = Path(folder, "page.html")
    during = read_records(result.run.results) if dist.is_main else []
    shared, _ = evaluate_command(result.run.path, [], page, False, 8, "cpu", dist=dist)
    alone, _ = evaluate_command(result.run.path, [], Path(folder, f"{dist.rank}.html"), False, 8, "cpu")
    assert [one.to_dict() for one in shared] == [one.to_dict() for one in alone]
    assert (shared[0].scores == alone[0].scores).all()  # type: ignore[union-attr]
    dist.barrier()
    if dist.is_main:
        best = result.run.best()
        assert best is not None
        kept = [one.result for one in during if one.model.step == best["step"]]
        # Each process has batch statistics of its own; those that are saved were measured
        assert kept == [json.loads(json.dumps(one.to_dict())) for one in alone]


def test_what_two_processes_measure_in_training_is_what_one_measures_afterwards(tmp_path: Path) -> None:
    run_processes(2, _train_and_evaluate, str(tmp_path))
