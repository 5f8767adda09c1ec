"""Run a command in several processes of this machine, as torchrun does on many."""

import contextlib
import ctypes
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_GRACE_S = 30.0  # for the others to say why, once a process has failed, and for an end that was asked for
_POLL_S = 0.1
_PR_SET_PDEATHSIG = 1
_TAIL = 4096


def run_processes(command: Sequence[str], processes: int, environment: Mapping[str, str]) -> int:
    """Run ``command`` in so many processes that form a group, and wait for them.

    The first has this process's output and speaks for all. What another one writes to stderr is shown where
    it was the first to fail, in another way than the one that speaks. Ctrl-C, SIGTERM and SIGHUP go on to all
    of them, and they end when this process dies.

    Args:
        command: program and arguments.
        processes: how many, at least 1.
        environment: theirs; the variables of the group are added.

    Returns:
        The exit status of the process that failed first, or 0.
    """
    if "lo" in (name for _, name in socket.if_nameindex()):
        # Otherwise Gloo looks the host's name up, which not every machine knows
        environment = {"GLOO_SOCKET_IFNAME": "lo", **environment}
    running: list[subprocess.Popen[bytes]] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(_forwarding(running))
        logs: list[IO[bytes] | None] = [None]
        logs += [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, processes)]
        for log, place in zip(logs, group_environments(processes, environment), strict=True):
            running.append(
                subprocess.Popen(
                    command,
                    env=place,
                    stdout=log and subprocess.DEVNULL,
                    stderr=log,
                    process_group=0,  # or Ctrl-C would reach them twice
                    preexec_fn=_end_with_parent,
                )
            )
        failed = _wait(running)
        status, spoken = (_status(running[rank].returncode) for rank in (failed, 0))
        log = logs[failed]
        if log and status != spoken:
            log.seek(-min(_TAIL, log.seek(0, os.SEEK_END)), os.SEEK_END)
            sys.stderr.write(log.read().decode(errors="replace"))
    return status


def group_environments(processes: int, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """The environment of each process of a group on this machine; what is left of another launch goes."""
    outside = {key: value for key, value in environment.items() if not key.startswith("TORCHELASTIC_")}
    group = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
    }
    return [{**outside, **group, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]


def _wait(running: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for all; once one has failed the others get a while to end, then they are ended.

    Returns:
        The rank that was first to fail, or 0.
    """
    failed, deadline = 0, math.inf
    ends = iter((signal.SIGTERM, signal.SIGKILL))
    while any(process.poll() is None for process in running):
        time.sleep(_POLL_S)
        now = time.monotonic()
        if deadline == math.inf and any(process.poll() for process in running):
            failed = next(rank for rank, process in enumerate(running) if process.returncode)
            deadline = now + _GRACE_S
        if now >= deadline:
            deadline = now + _GRACE_S
            _tell(running, next(ends, signal.SIGKILL))
    return next((rank for rank in (failed, *range(len(running))) if running[rank].returncode), 0)


def _status(code: int) -> int:
    """As a shell gives it: 128 and the signal's number for a process that a signal ended."""
    return code if code >= 0 else 128 - code


def _tell(running: Sequence[subprocess.Popen[bytes]], number: int) -> None:
    for process in running:
        if process.poll() is None:
            process.send_signal(number)


@contextlib.contextmanager
def _forwarding(running: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Inside, signals that ask this process to end go on to those that are running."""

    def forward(number: int, frame: Any) -> None:
        _tell(running, number)

    old = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _end_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies: a training then writes a checkpoint and stops."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
