"""Write a training's whole state in one atomic step, at once or while the training goes on."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from facescale.checksums import Checksums, write_manifest
from facescale.distributed import Dist
from facescale.files import Writing, is_full_disk, no_space, put_on_disk
from facescale.run import RunDir
from facescale.train.checkpoint import TrainState, random_state
from facescale.train.tensors import copied, save_tensors

_MODEL = "model.safetensors"


@dataclass(frozen=True)
class Content:
    """What a checkpoint is made of.

    Attributes:
        state: counters; ``state.step`` names the checkpoint.
        tensors: state dicts that torch can load with ``weights_only``.
        model: given True for a copy of the weights, returns what writes them to a path, atomically.
        rows: given the folder and True for a copy, returns what writes this process's class-centre rows.
        num_bytes: of model and tensors, about.
    """

    state: TrainState
    tensors: dict[str, Any]
    model: Callable[[bool], Callable[[Path], None]]
    rows: Callable[[Path, bool], Writing]
    num_bytes: int = 0


@dataclass
class _Pending:
    """A checkpoint that is being written."""

    step: int
    folder: Path
    then: Callable[[], None]
    num_bytes: int = 0
    error: Exception | None = None
    write: Callable[[], list[Path]] = field(default=list)
    thread: Thread | None = None


class Saver:
    """Writes ``checkpoints/step_N``: all or nothing, whenever the process is killed.

    Each process writes its random state and its rows, the main one the rest, with a manifest of checksums;
    then the folder is renamed. In the background the training waits for a copy of all that only, which a
    thread writes. The folder takes its name in a step (``poll``) for which all processes have written, as no
    thread may talk to other processes beside the training.

    Args:
        run: where.
        dist: all processes make one.
        checksums: of the files that are known.
        background: copy, and write while the training goes on.
    """

    def __init__(self, run: RunDir, dist: Dist, checksums: Checksums, background: bool = False) -> None:
        self._run, self._dist, self._checksums, self._background = run, dist, checksums, background
        self._pending: _Pending | None = None

    @property
    def writing(self) -> bool:
        """Whether this process is writing now."""
        thread = self._pending.thread if self._pending else None
        return thread is not None and thread.is_alive()

    def save(self, content: Content, then: Callable[[], None]) -> None:
        """Write a checkpoint, or begin to; all processes call.

        If this step has one already (right after a resume), the state is the same; only the model is written
        again, because an evaluation may have added thresholds.

        Args:
            content: what to write.
            then: called when it has its name.

        Raises:
            NoSpaceError: the disk is full; the checkpoints before are whole.
        """
        self.finish()
        step = content.state.step
        if self._run.snapshot(step).exists():
            self._pending = _Pending(step, self._run.checkpoints / f".model_{step}", then, content.num_bytes)
            self._attempt(self._pending, lambda: self._renew_model(content))
            self._agree(self._pending)
            self._end(self._pending)
            return
        folder = self._run.checkpoints / f".writing_{step}"
        pending = self._pending = _Pending(step, folder, then, content.num_bytes)
        self._attempt(pending, lambda: self._make(folder))
        self._agree(pending)
        self._attempt(pending, lambda: self._prepare(pending, content))
        if self._background and pending.error is None:
            pending.thread = Thread(target=self._attempt, args=(pending, lambda: self._write(pending)))
            pending.thread.start()
            return
        if pending.error is None:
            self._attempt(pending, lambda: self._write(pending))
        self.finish()

    def poll(self, writing: bool) -> None:
        """Finish the checkpoint unless some process still writes (``writing``, the same on all of them)."""
        if self._pending and not writing:
            self.finish()

    def finish(self) -> None:
        """Wait until the checkpoint that was begun has its name; all processes call.

        Raises:
            NoSpaceError: the disk is full; the checkpoints before are whole.
        """
        pending = self._pending
        if pending is None:
            return
        self._join()
        self._agree(pending)
        self._attempt(pending, lambda: self._publish(pending))
        self._agree(pending)
        self._end(pending)

    def close(self) -> None:
        """Wait for the thread, after an error as well; a single process also finishes the checkpoint."""
        self._join()
        if self._dist.world_size == 1:
            self.finish()

    def _end(self, pending: _Pending) -> None:
        """Let the training go on once the main process has deleted older checkpoints: others look, too."""
        self._pending = None
        pending.then()
        self._dist.barrier()

    def _join(self) -> None:
        if self._pending and self._pending.thread:
            self._pending.thread.join()

    @staticmethod
    def _attempt(pending: _Pending, work: Callable[[], None]) -> None:
        """Keep an error until all processes can be told of it."""
        try:
            work()
        except Exception as error:  # whatever a library raises in the thread must reach the training
            pending.error = error

    def _agree(self, pending: _Pending) -> None:
        """Raise on all processes if one of them failed, and leave nothing behind."""
        self._dist.barrier()  # patient: one process may write for longer than a collective waits
        failed = self._dist.any(pending.error is not None)
        if not failed:
            return
        self._pending = None
        if self._dist.is_main:
            shutil.rmtree(pending.folder, ignore_errors=True)
        needed = self._dist.all_reduce(torch.tensor(pending.num_bytes, device=self._dist.device))
        what = f"the checkpoint of step {pending.step}"
        if pending.error is None:
            raise OSError(f"another process could not write {what}; its own message says why")
        if is_full_disk(pending.error):
            raise self._no_space(what, int(needed)) from None
        raise pending.error

    def _no_space(self, what: str, needed: int) -> OSError:
        steps = self._run.steps()
        kept = f"the one of step {steps[-1]} is whole; " if steps else ""
        again = f"{kept}free space there and run the same command again"
        return no_space(self._run.checkpoints, needed, what, again)

    def _make(self, folder: Path) -> None:
        if self._dist.is_main:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)

    def _prepare(self, pending: _Pending, content: Content) -> None:
        """Fix all that is to be written."""
        background, folder, dist = self._background, pending.folder, self._dist
        rows = content.rows(folder, background)
        pending.num_bytes = rows.num_bytes + (content.num_bytes if dist.is_main else 0)
        random = random_state(dist)
        if dist.is_main:
            model = content.model(background)
            tensors = copied(content.tensors) if background else content.tensors
            meta = {**asdict(content.state), "world_size": dist.world_size, "checksums": True}

        def write() -> list[Path]:
            paths = [save_tensors(random, folder / f"random_{dist.rank}.pt"), *rows.write()]
            if dist.is_main:
                model(folder / _MODEL)
                (folder / "meta.json").write_text(json.dumps(meta), encoding="utf-8")
                paths += [save_tensors(tensors, folder / "state.pt"), folder / _MODEL, folder / "meta.json"]
            return paths

        pending.write = write

    def _write(self, pending: _Pending) -> None:
        self._checksums.write_part(pending.folder, pending.write(), self._dist.rank)

    def _publish(self, pending: _Pending) -> None:
        """Give the checkpoint its name: what is on disk so far is the whole of it."""
        if not self._dist.is_main:
            return
        write_manifest(pending.folder, self._dist.world_size)
        for folder in [*(path for path in pending.folder.rglob("*") if path.is_dir()), pending.folder]:
            put_on_disk(folder)
        pending.folder.rename(self._run.snapshot(pending.step))
        put_on_disk(self._run.checkpoints)

    def _renew_model(self, content: Content) -> None:
        """Replace the model of a checkpoint; a kill at any moment leaves one that its manifest knows."""
        if not self._dist.is_main:
            return
        step = content.state.step
        final, new = self._run.snapshot(step), self._run.checkpoints / f".model_{step}"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        content.model(False)(new / _MODEL)
        self._checksums.renew(final, _MODEL, new / _MODEL)
        (new / _MODEL).replace(final / _MODEL)
        put_on_disk(final)
        new.rmdir()
