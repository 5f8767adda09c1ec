"""Join the process group that torchrun describes, and say in words why it broke."""

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from datetime import timedelta

import torch
import torch.distributed as td
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import PrefixStore, Store

from facescale.distributed.device import pick_device
from facescale.distributed.dist import Dist
from facescale.distributed.environment import Launch, read_launch
from facescale.distributed.peers import PeerError, Peers

TIMEOUT_S = 120.0
FIRST_TIMEOUT_S = 600.0

# Words of Gloo, NCCL and the store in errors that come as plain RuntimeErrors
_OF_COLLECTIVES = ("gloo", "NCCL", "ProcessGroup", "Connection closed by peer", "Broken pipe")


@contextlib.contextmanager
def start(
    device: str = "auto", timeout_s: float = TIMEOUT_S, first_timeout_s: float = FIRST_TIMEOUT_S
) -> Iterator[Dist]:
    """Join the process group that torchrun described in the environment (if any) and leave it at the end.

    Args:
        device: auto, cpu, cuda, ...; each process of a host takes the GPU of its number there.
        timeout_s: longest that a process waits for the others in a step.
        first_timeout_s: the same while the group forms, and up to the end of the first step.

    Raises:
        ValueError: the device is not available; the environment describes no group.
        PeerError: another process failed, stopped, or did not come.
    """
    launch = read_launch()
    if launch is None:
        yield Dist(device=pick_device(device))
        return
    picked = _device_of(launch, device)
    peers = _join(launch, picked, timeout_s, first_timeout_s)
    try:
        yield Dist(launch.rank, launch.world_size, picked, peers)
    except BaseException as error:
        raise _explained(error, peers, launch) from None
    finally:
        peers.close()
        with contextlib.suppress(RuntimeError):
            td.destroy_process_group()


def _explained(error: BaseException, peers: Peers, launch: Launch) -> BaseException:
    """The error to raise instead; the others learn why this process leaves."""
    if threading.current_thread() is threading.main_thread():
        # torchrun ends what is left as soon as one process has died: first the sentence, in a few seconds
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if isinstance(error, RuntimeError) and _is_collective(error):
        error = PeerError(peers.explain(peers.place.doing))
    peers.leave(None if isinstance(error, PeerError) else _reason(error))
    if launch.rank == 0 and not launch.is_agent:
        peers.linger()  # the store goes with this process
    return error


def _device_of(launch: Launch, name: str) -> torch.device:
    picked = pick_device(name)
    if picked.type != "cuda":
        return picked
    if ":" in name:
        raise ValueError(
            f"--device {name} is one GPU for {launch.world_size} processes; use --device cuda: each process "
            "takes the GPU of its number on its host"
        )
    if launch.local_rank >= torch.cuda.device_count():
        raise ValueError(
            f"process {launch.local_rank} of host {socket.gethostname()} has no GPU of that number: the host "
            f"has {torch.cuda.device_count()}; start at most as many processes there (--nproc-per-node)"
        )
    picked = torch.device("cuda", launch.local_rank)
    torch.cuda.set_device(picked)
    return picked


def _join(launch: Launch, device: torch.device, timeout_s: float, first_timeout_s: float) -> Peers:
    """Form the group; the signs of life begin before it, so that they tell who is missing."""
    seconds = timedelta(seconds=first_timeout_s)
    prefix = f"facescale/{launch.attempt}"

    def connect(is_server: bool = False) -> Store:
        store = TCPStore(
            *(launch.address, launch.port, launch.world_size, is_server, seconds), wait_for_workers=False
        )
        return PrefixStore(prefix, store)

    try:
        store = connect(is_server=launch.rank == 0 and not launch.is_agent)
        peers = Peers(connect, launch.rank, launch.world_size, timeout_s, launch.server)
    except (RuntimeError, OSError) as error:
        raise PeerError(_no_store(launch, first_timeout_s, error)) from None
    try:
        td.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=launch.rank,
            world_size=launch.world_size,
            timeout=seconds,
        )
    except RuntimeError:
        sentence = peers.explain("forming the group")
        peers.leave(None)
        peers.close()
        raise PeerError(sentence) from None
    return peers


def _no_store(launch: Launch, seconds: float, error: Exception) -> str:
    if "EADDRINUSE" in str(error) or "in use" in str(error):
        return (
            f"port {launch.port} of this host is in use; choose another MASTER_PORT (torchrun --master-port)"
        )
    return (
        f"rank {launch.rank} on host {socket.gethostname()} cannot reach {launch.server} "
        f"(waited up to {seconds:g} s): check that it runs there and that the port is open"
    )


def _is_collective(error: RuntimeError) -> bool:
    return isinstance(error, td.DistError) or any(word in str(error) for word in _OF_COLLECTIVES)


def _reason(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return "it was interrupted"
    return (str(error) or type(error).__name__).partition("\n")[0]
