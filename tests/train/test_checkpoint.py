"""A checkpoint appears whole or not at all, and brings back what was saved."""

import json
from pathlib import Path

import pytest
import torch

from facescale.distributed import Dist
from facescale.run import RunDir
from facescale.train import checkpoint
from facescale.train.checkpoint import TrainState
from tests.disk_calls import inode, record_calls


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    made.create()
    return made


def save(run: RunDir, step: int, fail: bool = False) -> None:
    def write_model(path: Path) -> None:
        if fail:
            raise OSError("disk full")
        path.write_bytes(b"weights")

    tensors = {"optimizer": {"momentum": torch.arange(3.0)}}
    checkpoint.save(run, Dist(), TrainState(step=step), tensors, write_model, lambda folder: None)


def test_what_was_saved_is_loaded_and_random_numbers_continue(run: RunDir) -> None:
    torch.manual_seed(1)
    torch.rand(3)
    save(run, 7)
    expected = torch.rand(2)
    torch.manual_seed(99)
    state, tensors = checkpoint.load(run.snapshot(7), Dist())
    assert state == TrainState(step=7)
    assert torch.equal(tensors["optimizer"]["momentum"], torch.arange(3.0))
    assert torch.equal(torch.rand(2), expected)


def test_a_write_that_fails_leaves_the_one_before(run: RunDir) -> None:
    save(run, 1)
    with pytest.raises(OSError, match="disk full"):
        save(run, 2, fail=True)
    assert run.steps() == [1]


def test_all_of_a_checkpoint_is_on_disk_before_it_takes_its_name(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_calls(monkeypatch)
    save(run, 3)
    folder = run.snapshot(3)
    renamed = calls.index(("rename", inode(folder)))
    on_disk = {number for kind, number in calls[:renamed] if kind == "sync"}
    assert {inode(path) for path in (folder, *folder.rglob("*"))} <= on_disk
    assert ("sync", inode(run.checkpoints)) in calls[renamed:], "the name itself must be on disk, too"


def test_a_step_that_is_saved_already_gets_the_newer_model_only(run: RunDir) -> None:
    save(run, 4)
    state = (run.snapshot(4) / "state.pt").read_bytes()
    (run.snapshot(4) / "model.safetensors").write_bytes(b"before the evaluation")
    save(run, 4)
    assert (run.snapshot(4) / "model.safetensors").read_bytes() == b"weights"
    assert (run.snapshot(4) / "state.pt").read_bytes() == state
    assert [entry.name for entry in run.checkpoints.iterdir()] == ["step_00000004"]


def test_a_checkpoint_of_an_earlier_version_has_no_window(run: RunDir) -> None:
    save(run, 1)
    old = {"step": 1, "bad_steps": 2, "bad_in_a_row": 0, "seconds": 3.5, "world_size": 1}
    (run.snapshot(1) / "meta.json").write_text(json.dumps(old))
    state, _ = checkpoint.load(run.snapshot(1), Dist())
    assert state == TrainState(step=1, bad_steps=2, seconds=3.5, warned=False, window={})


def test_bad_steps_are_counted_in_all_and_in_a_row() -> None:
    state = TrainState()
    for bad in (True, False, True, True):
        state.count_step(bad)
    assert (state.step, state.bad_steps, state.bad_in_a_row) == (4, 3, 2)


def test_a_damaged_checkpoint_is_one_sentence(run: RunDir) -> None:
    save(run, 1)
    (run.snapshot(1) / "state.pt").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"checkpoint .* cannot be read .*; delete it to use the one before"):
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
