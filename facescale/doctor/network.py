"""Whether processes of this host can form a group: ports, the host's own name, a collective."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from facescale.doctor.finding import Finding
from facescale.machine.processes import group_environments

TORCHRUN_PORT = 29500
_SECONDS = 90.0  # two processes import torch, too
_ANSWER = 2.0

_MEMBER = (
    "import sys, torch\n"
    "from facescale.distributed import start\n"
    "with start(sys.argv[1], 30, 60) as dist:\n"
    "    total = dist.all_reduce(torch.ones(1, device=dist.device) * (dist.rank + 1))\n"
    "    sys.exit(0 if float(total) == 3 else 'a sum over two processes is wrong')\n"
)


def ports() -> Iterator[Finding]:
    """Torchrun's port, and whether the host finds itself by its name."""
    with socket.socket() as one:
        try:
            one.bind(("", TORCHRUN_PORT))
            yield Finding("port", f"{TORCHRUN_PORT}, torchrun's own, is free")
        except OSError:
            fix = "torchrun --standalone or --master-port takes another"
            yield Finding("port", f"{TORCHRUN_PORT}, torchrun's own, is in use", fix)
    name = socket.gethostname()
    try:
        with socket.socket() as server:
            server.bind(("", 0))
            server.listen()
            with socket.create_connection((name, server.getsockname()[1]), timeout=_ANSWER):
                pass
        yield Finding("host name", f"{name} leads here")
    except OSError as error:
        fix = f"add {name} to /etc/hosts, or give torchrun --master-addr 127.0.0.1"
        yield Finding("host name", f"{name} does not lead here ({error.strerror or error})", fix)


def collective(kind: str, num_devices: int) -> Iterator[Finding]:
    """A sum over two processes of this host.

    Args:
        kind: of device, cpu or cuda.
        num_devices: GPUs; with fewer than two, the processes use the CPU.
    """
    on = "cuda" if kind == "cuda" and num_devices > 1 else "cpu"
    library = "NCCL" if on == "cuda" else "Gloo"
    before = time.monotonic()
    reason = _failure(on)
    if reason is None:
        yield Finding("two processes", f"a collective by {library} in {time.monotonic() - before:.0f} s")
        return
    fix = "let them use the loopback interface: GLOO_SOCKET_IFNAME=lo, for GPUs NCCL_SOCKET_IFNAME=lo"
    yield Finding("two processes", f"no collective by {library} ({reason})", fix)


def _failure(device: str) -> str | None:
    """Why two processes could not add numbers, or None."""
    members = [
        subprocess.Popen(
            [sys.executable, "-c", _MEMBER, device],
            env=place,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for place in group_environments(2, os.environ)
    ]
    until = time.monotonic() + _SECONDS
    try:
        texts = [one.communicate(timeout=max(0.0, until - time.monotonic()))[1] for one in members]
    except subprocess.TimeoutExpired:
        return f"no end within {_SECONDS:g} s"
    finally:
        for one in members:
            one.kill()
            one.wait()
    failed = next((text for one, text in zip(members, texts, strict=True) if one.returncode), None)
    return None if failed is None else (failed.strip().splitlines() or ["no reason given"])[-1]
