"""Twenty kills at random moments, many of them inside a checkpoint write."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facescale.run import RunDir
from tests.tiny import TINY

STEPS = 60
KILLS = 20
SETTINGS = [*TINY, f"train.duration={STEPS} steps", "checkpoint.every=1 steps", "eval.every=100%"]


def command(run: Path) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [sys.executable, "-m", "facescale", "train", "--run", str(run), "--threads", "1", *settings]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_twenty_times_ends_with_the_same_weights(tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "whole"), check=True, stdout=subprocess.DEVNULL)
    whole, killed = RunDir(tmp_path / "whole"), RunDir(tmp_path / "killed")
    draw = random.Random(0)
    kills = 0
    while kills < KILLS:
        before = len(killed.steps()) and killed.steps()[-1]
        process = subprocess.Popen(command(killed.path), stdout=subprocess.DEVNULL)
        target = min(before + 1, STEPS - 1)  # a checkpoint later, anywhere in a step or in a write
        while process.poll() is None and (killed.steps() or [0])[-1] < target:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        kills += process.wait() == -9
        if killed.steps() and killed.steps()[-1] == STEPS:
            break
    subprocess.run(command(killed.path), check=True, stdout=subprocess.DEVNULL)
    a, b = load_file(whole.model_path(STEPS)), load_file(killed.model_path(STEPS))
    assert kills == KILLS, f"the run ended after {kills} kills"
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
