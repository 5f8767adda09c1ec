"""The option --processes: a command that starts itself again in several processes of this machine."""

import os
import sys
from typing import Annotated

import typer

from facescale.machine.cores import free_cores
from facescale.machine.processes import run_processes

ProcessesOption = Annotated[
    int,
    typer.Option(min=0, help="Processes on this machine, such as one for each GPU; 0: one, or torchrun's."),
]


def spread(context: typer.Context, processes: int) -> None:
    """Run this command in so many processes and exit as they do; return at once in one of them.

    Args:
        context: of the command.
        processes: their number; 0: this one goes on, alone or among those that torchrun started.

    Raises:
        ValueError: torchrun has started another number.
    """
    launched = _launched() or "1"
    if processes == 0 or launched == str(processes):
        return
    if launched != "1":
        raise ValueError(
            f"--processes {processes} in one of {launched} processes that torchrun started; leave it out"
        )
    chosen_here = {one.variable for one in context.obj}  # each process chooses again, as one of several
    environment = {key: value for key, value in os.environ.items() if key not in chosen_here}
    # DDP warns of an option that exact resume needs, and C++ can be told to keep quiet only here
    environment.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    command = [sys.executable, "-m", "facescale", *sys.argv[1:]]
    raise typer.Exit(run_processes(command, processes, environment))


def demo_processes(device: str) -> int:
    """For ``spread``: two on CPU cores, which a small network trains on faster than on two threads."""
    from facescale.distributed.device import pick_device

    on_cores = pick_device(device).type == "cpu" and free_cores()[0] > 1
    return 2 if on_cores and not _launched() else 0


def _launched() -> str:
    """How many processes torchrun, or this module, has started, if it has."""
    return os.environ.get("WORLD_SIZE", "").strip()
