"""Run a function on several processes that form a Gloo group."""

import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from typing import Any

import pytest
import torch
import torch.distributed as td
import torch.multiprocessing as mp

from facescale.distributed import Dist, start


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


def _launched(
    check: Callable[..., None], args: tuple[Any, ...], limits: tuple[float, float], sender: Any
) -> None:
    torch.set_num_threads(1)
    try:
        with start("cpu", *limits) as dist:
            check(dist, *args)
        sender.send(None)
    except BaseException as error:
        sender.send((type(error).__name__, str(error)))


def launch_processes(
    world_size: int,
    check: Callable[..., None],
    *args: Any,
    limits: tuple[float, float] = (60.0, 60.0),
    ranks: Sequence[int] | None = None,
) -> list[tuple[str, str] | None]:
    """Start processes as torchrun does and call ``check(dist, *args)`` on each; killed ones are waited for.

    Args:
        world_size: number of processes.
        check: what they do.
        args: for it.
        limits: seconds that they wait for each other, and in the beginning.
        ranks: those that are started at all.

    Returns:
        How each of them ended: None as it should, (kind, text) of its error, ("killed", "") without a word.
    """
    context = mp.get_context("fork")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world_size)}
    running = []
    for rank in range(world_size) if ranks is None else ranks:
        receiver, sender = context.Pipe(duplex=False)
        with pytest.MonkeyPatch.context() as patch:
            for key, value in {**group, "RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}.items():
                patch.setenv(key, value)
            process = context.Process(target=_launched, args=(check, args, limits, sender))
            process.start()
        sender.close()
        running.append((process, receiver))
    words: dict[Any, tuple[str, str] | None] = {}
    receivers = [receiver for _, receiver in running]
    try:
        # The others tell what became of one that is stopped; it is not waited for
        while ready := wait(set(receivers) - words.keys(), timeout=2 if words else 30):
            for receiver in ready:
                try:
                    words[receiver] = receiver.recv()
                except EOFError:
                    words[receiver] = "killed", ""
        return [words.get(receiver, ("killed", "")) for receiver in receivers]
    finally:
        for process, _ in running:
            process.kill()
            process.join()
