"""The state of a training: which checkpoint to continue from, and reading it on any number of processes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from facescale.checksums import Checksums
from facescale.distributed import Dist
from facescale.guard.reading import read_object, reason
from facescale.guard.torch_file import read_torch
from facescale.run import RunDir

_ONE_BEFORE = "delete the folder of this checkpoint to use the one before"
_NOT_STATE = {"world_size", "checksums"}


@dataclass
class TrainState:
    """Counters of a run; all else that changes lives in task, optimizer and scaler.

    Attributes:
        step: optimizer steps done (the data position follows from it).
        bad_steps: non-finite steps so far.
        bad_in_a_row: non-finite steps since the last finite one.
        seconds: time spent training up to the last log line, over all sittings.
        warned: the last log line looked wrong, and a health line has said so.
        rate_factor: on the scheduled learning rate; lowered when the run goes back to a checkpoint.
        window: what the meter has collected since the last log line.
    """

    step: int = 0
    bad_steps: int = 0
    bad_in_a_row: int = 0
    seconds: float = 0.0
    warned: bool = False
    rate_factor: float = 1.0
    window: dict[str, float] = field(default_factory=dict)

    def count_step(self, bad: bool) -> None:
        """Count an optimizer step, or one that was skipped because it was not finite (``bad``)."""
        self.step += 1
        self.bad_steps += bad
        self.bad_in_a_row = self.bad_in_a_row + 1 if bad else 0


def damage_of(folder: Path, dist: Dist, checksums: Checksums) -> str:
    """What is wrong with a checkpoint; empty: nothing. All processes call; each reads some of the files."""
    first, count = checksums.first_damaged(folder, dist.rank, dist.world_size)
    first = int(dist.all_reduce(torch.tensor(first, device=dist.device), "min"))
    return "" if first == count else checksums.describe(folder, first)


def newest_whole(run: RunDir, dist: Dist, checksums: Checksums) -> tuple[int | None, list[str]]:
    """Step of the newest checkpoint without a damaged file; all processes call, each reads a share of it.

    Returns:
        The step, None if the run has no checkpoint; and a sentence for each damaged newer one.

    Raises:
        ValueError: all checkpoints are damaged.
    """
    damaged: dict[int, str] = {}
    for step in reversed(run.steps()):
        damage = damage_of(run.snapshot(step), dist, checksums)
        if not damage:
            used = f"the training continues from step {step} and writes the damaged one again"
            return step, [f"{run.snapshot(bad)} is damaged ({what}); {used}" for bad, what in damaged.items()]
        damaged[step] = damage
    if not damaged:
        return None, []
    each = ", ".join(f"{run.snapshot(step).name}: {what}" for step, what in damaged.items())
    raise ValueError(
        f"no checkpoint of the run {run.path} is whole ({each}); restore one from a copy, or use another "
        "--run folder"
    )


def load(folder: Path, dist: Dist) -> tuple[TrainState, dict[str, Any]]:
    """Counters and state dicts of a checkpoint; restores this process's random state.

    On another number of processes than it was saved by, the random state of ranks that did not exist is new.

    Raises:
        ValueError: the folder is not a whole checkpoint.
    """
    meta = read_object(folder / "meta.json", "the checkpoint", "step", advice=_ONE_BEFORE)
    try:
        tensors = read_torch(folder / "state.pt")
        random = folder / f"random_{dist.rank}.pt"
        if random.exists():
            _restore_random(read_torch(random), dist)
        return TrainState(**{key: meta[key] for key in meta.keys() - _NOT_STATE}), tensors
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"checkpoint {folder} cannot be read ({reason(error)}); {_ONE_BEFORE}") from None


def random_state(dist: Dist) -> dict[str, torch.Tensor]:
    """Of this process and its device, for ``load``."""
    states = {"cpu": torch.get_rng_state()}
    if dist.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(dist.device)
    return states


def _restore_random(states: dict[str, torch.Tensor], dist: Dist) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states and dist.device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], dist.device)
