"""Fifty kills among three processes that torchrun starts again: the same weights in the end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facescale.run import RunDir
from tests.same_run import differences
from tests.tiny import TINY

KILLS = 50
STEPS = 3 * KILLS
SETTINGS = [
    *TINY,
    f"train.duration={STEPS} steps",
    "train.batch_size=12",
    "checkpoint.every=1 steps",
    "eval.every=100%",
]


def command(run: Path) -> list[str]:
    words = [part for setting in SETTINGS for part in ("--set", setting)]
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"),
        *(f"--max-restarts={2 * KILLS}", "-m", "--", "facescale", "train", "--device", "cpu"),
        *("--threads", "1", "--run", str(run), *words),
    ]


def ranks_of(torchrun: int) -> list[int]:
    """Process ids of the ranks that a torchrun has started."""
    found = Path(f"/proc/{torchrun}/task/{torchrun}/children").read_text().split()
    return [int(pid) for pid in found]


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs /proc to find the ranks")
def test_three_processes_killed_fifty_times_end_with_the_same_weights(tmp_path: Path) -> None:
    killed, whole = RunDir(tmp_path / "killed"), RunDir(tmp_path / "whole")
    draw = random.Random(0)
    kills, reached, dead = 0, 0, set[int]()
    with (tmp_path / "log").open("wb") as log:
        torchrun = subprocess.Popen(command(killed.path), stdout=log, stderr=log, start_new_session=True)
    try:
        while torchrun.poll() is None and kills < KILLS:
            alive = [pid for pid in ranks_of(torchrun.pid) if pid not in dead]
            newest = (killed.steps() or [0])[-1]
            if newest > reached and len(alive) == 3:
                time.sleep(draw.uniform(0, 0.3))  # anywhere in a step or in a write
                os.kill(draw.choice(alive), signal.SIGKILL)
                kills, reached = kills + 1, (killed.steps() or [0])[-1]
                dead.update(alive)
            time.sleep(0.02)
        assert torchrun.wait(600) == 0, (tmp_path / "log").read_text()[-2000:]
    finally:
        if torchrun.poll() is None:
            torchrun.terminate()
            torchrun.wait()
    assert kills == KILLS, f"the run ended after {kills} kills"
    subprocess.run(command(whole.path), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert differences(whole.path, killed.path) == []
