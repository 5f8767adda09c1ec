"""Write a training's whole state in one atomic step, and read it back on any number of processes."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from facescale.distributed import Dist
from facescale.run import RunDir


@dataclass
class TrainState:
    """Counters of a run; all else that changes lives in task, optimizer and scaler.

    Attributes:
        step: optimizer steps done (the data position follows from it).
        bad_steps: non-finite steps so far.
        bad_in_a_row: non-finite steps since the last finite one.
        seconds: time spent training up to the last log line, over all sittings.
        warned: the last log line looked wrong, and a health line has said so.
        window: what the meter has collected since the last log line.
    """

    step: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    seconds: float = 0.0
    warned: bool = False
    window: dict[str, float] = field(default_factory=dict)

    def count_step(self, bad: bool) -> None:
        """Count an optimizer step, or one that was skipped because it was not finite (``bad``)."""
        self.step += 1
        self.bad_steps += bad
        self.bad_in_a_row = self.bad_in_a_row + 1 if bad else 0


def _sync(path: Path) -> None:
    """Put a file or the entries of a folder on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save(
    run: RunDir,
    dist: Dist,
    state: TrainState,
    tensors: dict[str, Any],
    write_model: Callable[[Path], None],
    write_rows: Callable[[Path], None],
) -> None:
    """Write ``checkpoints/step_N``: all or nothing, whenever the process is killed.

    If this step has a checkpoint already (right after a resume), the state is the same; only the model is
    written again, because an evaluation may have added thresholds.

    Args:
        run: where.
        dist: all processes call this; each writes its random state, the main one the rest.
        state: counters; ``state.step`` names the checkpoint.
        tensors: state dicts that torch can load with ``weights_only``.
        write_model: writes the weights for use (evaluation, export) atomically to the path it is given.
        write_rows: writes this process's class-centre rows into the folder it is given (on all processes).
    """
    final = run.snapshot(state.step)
    if final.exists():
        if dist.is_main:
            write_model(final / "model.safetensors")
        return
    temporary = run.checkpoints / f".writing_{state.step}"
    if dist.is_main:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    dist.barrier()
    torch.save(_random_state(dist), temporary / f"random_{dist.rank}.pt")
    write_rows(temporary)
    if dist.is_main:
        torch.save(tensors, temporary / "state.pt")
        write_model(temporary / "model.safetensors")
        (temporary / "meta.json").write_text(
            json.dumps({**asdict(state), "world_size": dist.world_size}), encoding="utf-8"
        )
    dist.barrier()
    if dist.is_main:
        for path in [*temporary.rglob("*"), temporary]:
            _sync(path)
        temporary.rename(final)
        _sync(run.checkpoints)
    dist.barrier()


def load(folder: Path, dist: Dist) -> tuple[TrainState, dict[str, Any]]:
    """Counters and state dicts of a checkpoint; restores this process's random state.

    On another number of processes than it was saved by, the random state of ranks that did not exist is new.

    Raises:
        ValueError: the folder is not a whole checkpoint.
    """
    try:
        meta = json.loads((folder / "meta.json").read_text("utf-8"))
        tensors = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        random = folder / f"random_{dist.rank}.pt"
        if random.is_file():
            _restore_random(torch.load(random, weights_only=True), dist)
    except (OSError, RuntimeError, UnpicklingError, json.JSONDecodeError, EOFError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"checkpoint {folder} cannot be read ({reason}); delete it to use the one before"
        ) from None
    meta.pop("world_size")
    return TrainState(**meta), tensors


def _random_state(dist: Dist) -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if dist.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(dist.device)
    return states


def _restore_random(states: dict[str, torch.Tensor], dist: Dist) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and dist.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], dist.device)
