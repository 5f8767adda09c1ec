"""Processes that fail, stop or stay away: every other one says in a sentence which it was."""

import os
import signal
import threading
from typing import Any

import pytest
import torch

from facescale.distributed import Dist, compare_ranks, peers
from facescale.distributed.agreement import source_digest, weights_checksum
from facescale.distributed.environment import read_launch
from facescale.distributed.launch import start
from tests.distributed.spawn import launch_processes, run_processes

SOON = (1.0, 20.0)  # seconds that processes wait for each other, and in the beginning


@pytest.fixture(autouse=True)
def _quick_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "BEAT", 0.1)
    monkeypatch.setattr(peers, "WATCHED", 0.5)


def pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def end(dist: Dist, how: str) -> None:
    dist.note("its own work", step=7)
    dist.shorten_timeout()
    dist.barrier()
    if dist.rank == 1:
        pause(0.3)  # its last sign of life is of step 7
        if how == "raises":
            raise ValueError("image 'x' cannot be read; repair it")
        os.kill(os.getpid(), {"killed": signal.SIGKILL, "stopped": signal.SIGSTOP}[how.split()[0]])
    if how.endswith("meeting"):
        dist.barrier()
    else:
        dist.all_reduce(torch.ones(1))


@pytest.mark.parametrize("how", ["killed", "stopped", "killed before a meeting"])
def test_a_process_without_sign_of_life_is_named_with_host_step_and_collective(how: str) -> None:
    first, second, third = launch_processes(3, end, how, limits=SOON)
    assert second == ("killed", "")
    for rank, one in ((0, first), (2, third)):
        assert one is not None and one[0] == "PeerError"
        words = ("rank 1 on host ", "no sign of life", "at step 7, ", f"noticed by rank {rank} on host ")
        for word in (*words, "waiting for" if "meeting" in how else "all-reduce", "start the same command"):
            assert word in one[1], one[1]


def test_the_error_of_one_process_is_what_the_others_say() -> None:
    first, second = launch_processes(2, end, "raises", limits=SOON)
    assert second == ("ValueError", "image 'x' cannot be read; repair it")
    assert first is not None and first[0] == "PeerError"
    assert (
        "rank 1 on host " in first[1] and "stopped: image 'x' cannot be read; repair it (noticed" in first[1]
    )


def late(dist: Dist, collective: bool) -> None:
    dist.shorten_timeout()
    dist.barrier()
    if dist.rank == 1:
        dist.note("a long evaluation", step=3)
        pause(2.5)
    if collective:
        dist.all_reduce(torch.ones(1))
    else:
        dist.barrier()
        dist.barrier()


def test_processes_meet_after_longer_than_the_limit_of_collectives() -> None:
    assert launch_processes(2, late, False, limits=(1.0, 20.0)) == [None, None]


def test_a_living_process_that_is_late_is_named_with_what_it_does() -> None:
    first, _ = launch_processes(2, late, True, limits=(1.0, 20.0))
    assert first is not None and first[0] == "PeerError"
    assert "did not end within 1 s: waited for rank 1 on host " in first[1]
    assert "at step 3, a long evaluation" in first[1] and "distributed.timeout" in first[1]


def test_a_process_that_never_comes_is_named() -> None:
    (first,) = launch_processes(2, end, "killed", limits=(0.5, 0.5), ranks=[0])
    assert first is not None and first[0] == "PeerError" and "rank 1 (it never came)" in first[1]


def test_without_the_first_process_there_is_no_group() -> None:
    (second,) = launch_processes(2, end, "killed", limits=(0.5, 0.5), ranks=[1])
    assert second is not None and second[0] == "PeerError"
    assert "cannot reach rank 0 at 127.0.0.1:" in second[1] and "port is open" in second[1]


def test_a_port_in_use_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        set_environment(monkeypatch, WORLD_SIZE="2", RANK="0", MASTER_ADDR="localhost")
        monkeypatch.setenv("MASTER_PORT", str(taken.getsockname()[1]))
        with (
            pytest.raises(peers.PeerError, match=r"port \d+ of this host is in use; choose another"),
            start(),
        ):
            pass


# ---- the environment ---------------------------------------------------------------------------------------


def set_environment(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for key in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(key, raising=False)
    for key, value in values.items():
        monkeypatch.setenv(key, value)


GROUP = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "h", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 but no RANK; start several processes with torchrun, or unset"),
        ({"WORLD_SIZE": ""}, "has an empty WORLD_SIZE but no number of processes"),
        ({"RANK": "1"}, "has RANK=1 but no number of processes in WORLD_SIZE"),
        ({"WORLD_SIZE": "x"}, "WORLD_SIZE=x in the environment is not a whole number from 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0 in the environment is not a whole number from 1"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK=-1 in the environment is not a whole number from 0"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK=2 is not below WORLD_SIZE=2"),
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE=2 but no MASTER_ADDR and no MASTER_PORT"),
        ({**GROUP, "MASTER_PORT": "99999"}, "MASTER_PORT=99999 in the environment is not a whole number"),
    ],
)
def test_an_environment_that_describes_no_group_is_refused(
    values: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, **values)
    with pytest.raises(ValueError, match=message), start("cpu"):
        pass


def test_a_single_process_needs_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    for values in ({}, {"WORLD_SIZE": "1"}, {"WORLD_SIZE": "1", "RANK": "0"}, {"MASTER_ADDR": "left over"}):
        set_environment(monkeypatch, **values)
        with start("cpu") as dist:
            assert dist == Dist() and dist.peers is None
            dist.note("anything")
            dist.barrier()


def test_what_torchrun_sets_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_launch({**GROUP, "LOCAL_RANK": "3"}).server == "rank 0 at h:1"  # type: ignore[union-attr]
    launch = read_launch({**GROUP, "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RESTART_COUNT": "2"})
    assert launch is not None and (launch.server, launch.attempt) == ("torchrun at h:1", "2")


def test_processes_share_neither_one_gpu_nor_gpus_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, **GROUP, LOCAL_RANK="2")
    for name, message in (
        ("cuda:0", "--device cuda:0 is one GPU for 2 processes; use --device cuda"),
        ("cuda", "process 2 of host .* has no GPU of that number: the host has 1; start at most as many"),
    ):
        monkeypatch.setattr("facescale.distributed.launch.pick_device", torch.device)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(ValueError, match=message), start(name):
            pass


# ---- agreement ---------------------------------------------------------------------------------------------


def check_agreement(dist: Dist) -> None:
    compare_ranks(dist, {"optim.lr": 0.1, "code": source_digest()})
    usual: dict[str, Any] = {"optim.lr": 0.1, "a": 1, "b": 2, "c": 3, "text": "x" * 100}
    cases = [
        (
            {"optim.lr": 0.5},
            r"rank 1 on host \S+ differs from rank 0 on host \S+ in optim.lr \(0.5, not 0.1\)",
        ),
        ({"more": "y"}, r"in more \(\"y\", not nothing\); start all processes with the same command"),
        (
            {"a": 0, "b": 0, "c": 0, "text": ""},
            r"in a \(0, not 1\), b \(0, not 2\), c \(0, not 3\) and 1 more;",
        ),
    ]
    for change, message in cases:
        with pytest.raises(ValueError, match=message):
            compare_ranks(dist, usual | (change if dist.rank == 1 else {}))
    with pytest.raises(ValueError, match=r"rank 0 on host .* differs from rank 1"):  # two against one
        compare_ranks(dist, usual | ({"a": 5} if dist.rank == 0 else {}))


def test_the_process_that_differs_is_named_with_what_it_has() -> None:
    run_processes(3, check_agreement)
    compare_ranks(Dist(), {"a": 1})


def test_the_checksum_of_weights_sees_every_change() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(3, 2, dtype=torch.bfloat16))
    seen = {weights_checksum(net)}
    assert weights_checksum(net) in seen
    for x in net.parameters():
        x.data.view(-1)[0] += 1
        seen.add(weights_checksum(net))
    net[0].weight.data, net[1].weight.data = net[1].weight.data, net[0].weight.data
    assert len({*seen, weights_checksum(net)}) == 6
    assert weights_checksum(torch.nn.ReLU()) == 0
