"""Two trainings of one run: the second is refused, and a killed one leaves nothing that keeps others out."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from facescale.config import Config
from facescale.distributed import Dist
from facescale.run import RunDir
from facescale.train import train
from facescale.train.owner import Owner

HOLD = """
import sys
from facescale.distributed import Dist
from facescale.run import RunDir
from facescale.train.owner import Owner
owner = Owner(RunDir(sys.argv[1]), Dist())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path):  # type: ignore[no-untyped-def]
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == b"held\n"
    yield child
    child.kill()
    child.communicate()


def test_a_second_training_of_a_run_is_refused_and_changes_nothing(
    holder: subprocess.Popen[bytes], tiny_config: Config, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"another process is training the run .*; wait until it ends"):
        train(tiny_config, tmp_path / "run")
    assert os.listdir(tmp_path / "run") == [".lock"]


def test_a_killed_training_leaves_its_run_free(
    holder: subprocess.Popen[bytes], tiny_config: Config, tmp_path: Path
) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert train(tiny_config, tmp_path / "run").finished


def test_a_training_that_fails_or_ends_leaves_its_run_free(tiny_config: Config, tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    assert train(tiny_config, run.path).finished
    with pytest.raises(ValueError, match="has checkpoints already"):
        train(tiny_config, run.path, resume=False)
    Owner(run, Dist()).close()
