from pathlib import Path

import pytest
import torch

from facescale.distributed import Dist
from facescale.run import RunDir
from facescale.train import checkpoint
from facescale.train.checkpoint import TrainState


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
