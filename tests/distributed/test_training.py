"""A whole training on several processes, started as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from facescale.config import load_config
from facescale.distributed import Dist
from facescale.run import RunDir
from facescale.train import milestones, session
from facescale.train import train as train_here
from tests.distributed.spawn import run_processes
from tests.same_run import differences
from tests.tiny import TINY, train_steps


def train_by_torchrun(run: Path, *settings: str) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = ["-m", "--", "facescale", "train", "--device", "cpu", "--threads", "1", "--run", str(run)]
    words = [part for setting in [*TINY, *settings] for part in ("--set", setting)]
    subprocess.run([*torchrun, *command, *words], check=True, timeout=180, stdout=subprocess.DEVNULL)


def test_two_processes_train_one_run_and_one_process_continues_it(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "run")
    train_by_torchrun(run.path, "checkpoint.every=3 steps")
    assert run.steps()[-1] == 6
    assert json.loads((run.snapshot(6) / "meta.json").read_text())["world_size"] == 2
    assert json.loads(run.plan.read_text())["process_batch"] == 4
    # as if killed after step 3: one process takes over what two began
    for later in run.steps():
        if later > 3:
            run.snapshot(later).rename(tmp_path / "taken_away")
    assert train_here(load_config(None, [*TINY, "checkpoint.every=3 steps"]), run.path).finished
    assert run.steps()[-1] == 6
    weights = load_file(run.model_path(6))
    assert all(torch.isfinite(x).all() for x in weights.values() if x.is_floating_point())


def _train_twice(dist: Dist, folder: str) -> None:
    config = load_config(None, [*TINY, "head.name=attfc", "head.share=1.0"])
    assert train_here(config, Path(folder, "whole"), dist).finished
    for steps in (3, 2):  # the first stop comes before an evaluation
        assert not train_steps(config, Path(folder, "cut"), steps, dist).finished
    for _ in range(2):  # nothing is left to do for the second
        assert train_here(config, Path(folder, "cut"), dist).finished


def test_two_processes_go_on_where_two_stopped(tmp_path: Path) -> None:
    run_processes(2, _train_twice, str(tmp_path))
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def _three(dist: Dist, folder: str) -> None:
    config = load_config(None, [*TINY, "train.batch_size=12", "eval.sets={}"])
    assert train_here(config, Path(folder, "whole"), dist).finished
    assert not train_steps(config, Path(folder, "cut"), 3, dist).finished
    assert train_here(config, Path(folder, "cut"), dist).finished


def test_three_processes_go_on_bit_for_bit(tmp_path: Path) -> None:
    run_processes(3, _three, str(tmp_path))
    assert differences(tmp_path / "whole", tmp_path / "cut") == []


def _differ(dist: Dist, folder: str) -> None:
    cases = [
        (
            "optim.lr=0.5",
            r"differs from rank 0 on host \S+ in optim.lr \(0.5, not 0.1\); start all processes with",
        ),
        (
            "data.train=synthetic:ids=14,images=8,size=32",
            r"in the number of identities \(14, not 12\), the number of images",
        ),
    ]
    for setting, message in cases:
        config = load_config(None, [*TINY, *([setting] if dist.rank == 1 else [])])
        with pytest.raises(ValueError, match=rf"rank 1 on host .*{message}"):
            train_here(config, Path(folder, "run"), dist)
    assert not Path(folder, "run").exists()
    if dist.rank == 1:
        patch = pytest.MonkeyPatch()
        patch.setattr(session, "source_digest", lambda: "another")
    with pytest.raises(ValueError, match="in facescale's code"):
        train_here(load_config(None, TINY), Path(folder, "run"), dist)


def test_processes_with_another_config_or_code_are_refused(tmp_path: Path) -> None:
    run_processes(2, _differ, str(tmp_path))


def _other_data(dist: Dist, folder: str) -> None:
    # The data may lie elsewhere on each host: not the path is compared, but the images
    other = ["data.train=synthetic:ids=12,images=8,size=32,seed=5"] if dist.rank == 1 else []
    with pytest.raises(ValueError, match=r"rank 1 .* differs from rank 0 .* in the digest of the images"):
        train_here(load_config(None, [*TINY, *other]), Path(folder, "run"), dist)


def test_processes_with_other_images_are_refused(tmp_path: Path) -> None:
    run_processes(2, _other_data, str(tmp_path))


def _weights_part(dist: Dist, folder: str) -> None:
    checksum = milestones.weights_checksum
    patch = pytest.MonkeyPatch()
    patch.setattr(milestones, "weights_checksum", lambda net: checksum(net) + dist.rank)
    with pytest.raises(ValueError, match=r"rank 1 .* differs from rank 0 .* in the weights of the backbone"):
        train_here(load_config(None, TINY), Path(folder, "run"), dist)
    assert RunDir(Path(folder, "run")).steps() == []


def test_weights_that_part_are_noticed_at_a_checkpoint(tmp_path: Path) -> None:
    run_processes(2, _weights_part, str(tmp_path))
