"""The demo trains, evaluates and exports; one that is stopped early leaves the rest undone."""

import signal
from pathlib import Path
from typing import Any

import pytest

from facescale import load
from facescale.distributed import Dist
from facescale.plan import Plan
from facescale.recipes.demo import demo, demo_config
from tests.tiny import TINY

# what the demo's own file says and the tiny training has no use for
SHORT = [*TINY, "train.duration=4 steps"]


def test_the_settings_lie_on_top_of_the_demos_config() -> None:
    assert demo_config([]).backbone.name == "mbf_s"
    assert demo_config(["train.duration=7 steps"]).train.duration == "7 steps"
    with pytest.raises(ValueError, match=r"--set train.durration=1: unknown key"):
        demo_config(["train.durration=1"])


def test_it_trains_measures_and_exports(tmp_path: Path) -> None:
    result, report, exported = demo(tmp_path / "run", SHORT, Dist(), None)
    assert result.finished and result.step == 4
    assert report is not None and report.is_file() and "unseen" in report.read_text()
    assert exported is not None
    assert load(exported.path).fingerprint == load(tmp_path / "run").fingerprint


def test_one_that_is_stopped_is_neither_measured_nor_exported(tmp_path: Path) -> None:
    def stop(line: dict[str, Any], plan: Plan) -> None:
        if line["kind"] == "train" and line["step"] == 1:  # a second signal would end it at once
            signal.raise_signal(signal.SIGINT)

    result, report, exported = demo(tmp_path / "run", [*SHORT, "train.log_every=1"], Dist(), stop)
    assert not result.finished and report is None and exported is None
    assert not (tmp_path / "run" / "report.html").exists()
