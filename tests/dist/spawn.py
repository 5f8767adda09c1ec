"""Run a function on several processes that form a Gloo group."""

import os
import tempfile
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as td
import torch.multiprocessing as mp

from facescale.distributed import Dist


def _entry(rank: int, world_size: int, store: str, check: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    td.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    try:
        check(Dist(rank, world_size), *args)
    finally:
        td.destroy_process_group()


def run_processes(world_size: int, check: Callable[..., None], *args: Any) -> None:
    """Call ``check(dist, *args)`` on every process; an error on one of them is raised here."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = (world_size, f"{folder}/store", check, args)
        # Forked, as importing torch in every process would take longer than most checks; a process that has
        # used a GPU cannot be forked.
        method = "spawn" if torch.cuda.is_available() else "fork"
        mp.start_processes(_entry, arguments, nprocs=world_size, start_method=method)
