"""A checkpoint appears whole or not at all, whether it is written at once or in the background."""

import errno
import os
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from facescale.checksums import MANIFEST, Checksums
from facescale.distributed import Dist
from facescale.files import NoSpaceError, Writing
from facescale.run import RunDir
from facescale.train import checkpoint
from facescale.train.checkpoint import TrainState
from facescale.train.saver import Content, Saver
from tests.disk_calls import inode, record_calls


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    made = RunDir(tmp_path / "run")
    made.create()
    return made


@pytest.fixture(params=[False, True], ids=["at once", "background"])
def saver(request: pytest.FixtureRequest, run: RunDir) -> Saver:
    return Saver(run, Dist(), Checksums(), background=request.param)


def save(saver: Saver, step: int, model: bytes = b"weights", error: Exception | None = None) -> None:
    begin(saver, step, model, error)
    saver.finish()


def begin(
    saver: Saver,
    step: int,
    model: bytes = b"weights",
    error: Exception | None = None,
    then: Callable[[], None] = lambda: None,
) -> None:
    def write_model(path: Path) -> None:
        if error:
            raise error
        path.write_bytes(model)

    tensors = {"optimizer": {"momentum": torch.arange(3.0)}}
    rows = Writing(5, list)
    content = Content(
        TrainState(step=step), tensors, lambda copy: write_model, lambda folder, copy: rows, 10**18
    )
    saver.save(content, then)


def test_what_was_saved_is_loaded_and_random_numbers_continue(run: RunDir, saver: Saver) -> None:
    torch.manual_seed(1)
    torch.rand(3)
    save(saver, 7)
    expected = torch.rand(2)
    torch.manual_seed(99)
    state, tensors = checkpoint.load(run.snapshot(7), Dist())
    assert state == TrainState(step=7)
    assert torch.equal(tensors["optimizer"]["momentum"], torch.arange(3.0))
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("background", [False, True])
def test_other_processes_go_on_when_the_main_one_has_deleted_older_checkpoints(
    run: RunDir, background: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(Dist, "barrier", lambda self: events.append("barrier"))
    saver = Saver(run, Dist(), Checksums(), background)
    for _ in ("new", "with figures added"):
        begin(saver, 1, then=lambda: events.append("older ones deleted"))
        saver.finish()
        assert events[-2:] == ["older ones deleted", "barrier"]


def test_a_write_that_fails_leaves_the_one_before_and_nothing_else(run: RunDir, saver: Saver) -> None:
    save(saver, 1)
    with pytest.raises(OSError, match="input/output error"):
        save(saver, 2, error=OSError("input/output error"))
    assert [entry.name for entry in run.checkpoints.iterdir()] == ["step_00000001"]
    save(saver, 2)  # and the next one is written as ever
    assert run.steps() == [1, 2]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("1048576 requested and 131056 written"),
    ],
    ids=["system", "safetensors", "numpy"],
)
def test_a_full_disk_is_named_with_what_is_missing(run: RunDir, saver: Saver, error: Exception) -> None:
    save(saver, 1)
    with pytest.raises(NoSpaceError) as raised:
        save(saver, 2, error=error)
    pattern = (
        r"no space left on the disk at /.* for the checkpoint of step 2: \d+\.\d MB are missing "
        r"\(\d+\.\d MB needed, \d+\.\d MB free\); the one of step 1 is whole; free space there and run the "
        "same command again"
    )
    assert re.fullmatch(pattern, str(raised.value))
    assert [entry.name for entry in run.checkpoints.iterdir()] == ["step_00000001"]


def test_a_file_of_tensors_that_does_not_fit_is_a_full_disk(
    run: RunDir, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, data: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self) -> None: ...

        def close(self) -> None: ...

    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **b: Full() if self.name == "state.pt" else real(self, *a, **b)
    )
    with pytest.raises(NoSpaceError, match=r"for the checkpoint of step 3: .* MB are missing"):
        save(saver, 3)
    assert list(run.checkpoints.iterdir()) == []


def test_all_of_a_checkpoint_is_on_disk_before_it_takes_its_name(
    run: RunDir, saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = record_calls(monkeypatch)
    save(saver, 3)
    folder = run.snapshot(3)
    renamed = calls.index(("rename", inode(folder)))
    on_disk = {number for kind, number in calls[:renamed] if kind == "sync"}
    assert {inode(path) for path in (folder, *folder.rglob("*"))} <= on_disk
    assert ("sync", inode(run.checkpoints)) in calls[renamed:], "the name itself must be on disk, too"


def test_a_step_that_is_saved_already_gets_the_newer_model_only(run: RunDir, saver: Saver) -> None:
    save(saver, 4, b"before the evaluation")
    state = (run.snapshot(4) / "state.pt").read_bytes()
    for model in (b"weights", b"with other thresholds"):
        save(saver, 4, model)
        assert (run.snapshot(4) / "model.safetensors").read_bytes() == model
        assert (run.snapshot(4) / "state.pt").read_bytes() == state
        assert checkpoint.newest_whole(run, Dist(), Checksums()) == (4, [])
    assert [entry.name for entry in run.checkpoints.iterdir()] == ["step_00000004"]


def test_a_kill_while_the_model_is_replaced_leaves_a_whole_checkpoint(
    run: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    saver = Saver(run, Dist(), Checksums())
    save(saver, 4, b"before the evaluation")
    replace = Path.replace

    def killed(self: Path, target: Path) -> Path:
        if target == run.snapshot(4) / "model.safetensors":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        save(saver, 4, b"weights")
    assert checkpoint.newest_whole(run, Dist(), Checksums()) == (4, [])


def test_what_changes_after_a_save_has_begun_is_not_in_it(run: RunDir) -> None:
    saver, weight, go_on = Saver(run, Dist(), Checksums(), background=True), torch.zeros(2), threading.Event()

    def write(path: Path) -> None:
        go_on.wait(10)
        path.write_bytes(b"weights")

    content = Content(
        TrainState(step=1), {"weight": weight}, lambda copy: write, lambda folder, copy: Writing(0, list)
    )
    done: list[str] = []
    saver.save(content, lambda: done.append("follow-up"))
    assert saver.writing and not run.steps()
    weight.fill_(7)
    saver.poll(writing=True)
    assert not run.steps() and not done
    go_on.set()
    saver.finish()
    assert not saver.writing and run.steps() == [1] and done == ["follow-up"]
    assert torch.equal(checkpoint.load(run.snapshot(1), Dist())[1]["weight"], torch.zeros(2))


def test_a_process_learns_that_another_one_could_not_write(run: RunDir) -> None:
    class TwoProcesses(Dist):
        def any(self, flag: bool | torch.Tensor) -> bool:
            return True

    saver = Saver(run, TwoProcesses(), Checksums())
    with pytest.raises(
        OSError, match="another process could not write the checkpoint of step 2; its own message"
    ):
        save(saver, 2)


def test_closing_finishes_what_was_begun(run: RunDir) -> None:
    saver = Saver(run, Dist(), Checksums(), background=True)
    begin(saver, 1)
    saver.close()
    assert run.steps() == [1]


@pytest.fixture
def killed_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Ends the process, as far as the code can tell, at the n-th call that changes the file system."""
    count = [0, -1]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def made(*rest: Any, **options: Any) -> Any:
            count[0] += 1
            if count[0] >= count[1] > 0:  # a killed process makes no further call, in clean-ups neither
                raise KeyboardInterrupt
            return call(*rest, **options)

        return made

    for name in ("mkdir", "rename", "replace", "unlink", "rmdir", "fsync", "link"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))

    def at(call: int) -> None:
        count[:] = [0, call]

    yield at
    at(0)


@pytest.mark.parametrize("again", [False, True], ids=["new", "model alone"])
def test_a_kill_at_any_call_leaves_the_newest_checkpoint_whole(
    again: bool, tmp_path: Path, killed_at: Callable[[int], None]
) -> None:
    for call in range(1, 60):
        run = RunDir(tmp_path / str(call))
        run.create()
        save(Saver(run, Dist(), Checksums()), 1)
        if again:
            save(Saver(run, Dist(), Checksums()), 2, b"before")
        killed_at(call)
        try:
            save(Saver(run, Dist(), Checksums()), 2)
            killed_at(0)
            assert call > 8, "too few calls were seen"
            return
        except KeyboardInterrupt:
            killed_at(0)
        hidden = [path for step in run.steps() for path in run.snapshot(step).glob(".*")]
        assert not hidden, "what is half-written is beside the checkpoints, where it is cleared away"
        step, damages = checkpoint.newest_whole(run, Dist(), Checksums())
        assert not damages and step == run.steps()[-1] and step in ((2,) if again else (1, 2))
        save(Saver(run, Dist(), Checksums()), 2)
        assert checkpoint.newest_whole(run, Dist(), Checksums()) == (2, [])
    raise AssertionError("a save never came to its end")


def test_every_file_is_in_the_manifest(run: RunDir, saver: Saver) -> None:
    save(saver, 1)
    names = {path.name for path in run.snapshot(1).iterdir()}
    assert names == {MANIFEST, "meta.json", "model.safetensors", "random_0.pt", "state.pt"}
    assert Checksums().first_damaged(run.snapshot(1)) == (4, 4)
