"""Which checkpoint a training continues from, and what it brings back."""

import json
from pathlib import Path

import pytest
import torch

from facescale.checksums import Checksums
from facescale.distributed import Dist
from facescale.run import RunDir
from facescale.train import checkpoint
from facescale.train.checkpoint import TrainState
from facescale.train.saver import Saver
from tests.train.test_saver import save as save_with


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    made.create()
    return made


def save(run: RunDir, step: int) -> None:
    save_with(Saver(run, Dist(), Checksums()), step)


def test_a_checkpoint_of_an_earlier_version_has_no_window_and_no_manifest(run: RunDir) -> None:
    save(run, 1)
    old = {"step": 1, "bad_steps": 2, "bad_in_a_row": 0, "seconds": 3.5, "world_size": 1}
    (run.snapshot(1) / "meta.json").write_text(json.dumps(old))
    (run.snapshot(1) / "manifest.json").unlink()
    assert checkpoint.newest_whole(run, Dist(), Checksums()) == (1, [])
    state, _ = checkpoint.load(run.snapshot(1), Dist())
    assert state == TrainState(step=1, bad_steps=2, seconds=3.5, warned=False, window={})


def test_bad_steps_are_counted_in_all_and_in_a_row() -> None:
    state = TrainState()
    for bad in (True, False, True, True):
        state.count_step(bad)
    assert (state.step, state.bad_steps, state.bad_in_a_row) == (4, 3, 2)


def test_without_a_checkpoint_there_is_nothing_to_continue(run: RunDir) -> None:
    assert checkpoint.newest_whole(run, Dist(), Checksums()) == (None, [])


def test_the_newest_whole_checkpoint_is_used_and_said(run: RunDir) -> None:
    for step in (1, 2, 3):
        save(run, step)
    (run.snapshot(3) / "state.pt").unlink()
    damaged = f"{run.snapshot(3)} is damaged (state.pt is missing)"
    said = f"{damaged}; the training continues from step 2 and writes the damaged one again"
    assert checkpoint.newest_whole(run, Dist(), Checksums()) == (2, [said])


def test_when_all_are_damaged_each_is_named(run: RunDir) -> None:
    for step in (1, 2):
        save(run, step)
    size = (run.snapshot(1) / "meta.json").stat().st_size
    (run.snapshot(1) / "meta.json").write_text("{")
    (run.snapshot(2) / "manifest.json").unlink()
    with pytest.raises(ValueError) as raised:
        checkpoint.newest_whole(run, Dist(), Checksums())
    assert str(raised.value) == (
        f"no checkpoint of the run {run.path} is whole (step_00000002: manifest.json is missing, "
        f"step_00000001: meta.json has 1 bytes instead of {size}); restore one from a copy, or use another "
        "--run folder"
    )


@pytest.mark.parametrize("name", ["state.pt", "meta.json", "random_0.pt"])
def test_a_damaged_checkpoint_without_a_manifest_is_one_sentence(run: RunDir, name: str) -> None:
    save(run, 1)
    for text in ("nonsense", "{}", "[]"):
        (run.snapshot(1) / name).write_text(text)
        with pytest.raises(ValueError, match=r"cannot .*read.*; delete the folder of this checkpoint"):
            checkpoint.load(run.snapshot(1), Dist())


def test_nothing_in_a_checkpoint_is_executed(run: RunDir, tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (open, (str(tmp_path / "owned"), "w"))

    save(run, 1)
    torch.save({"optimizer": Evil()}, run.snapshot(1) / "state.pt")
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.load(run.snapshot(1), Dist())
    assert not (tmp_path / "owned").exists()
