"""Two hosts, as two network namespaces: the link between them is cut, and the training goes on later."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from facescale.run import RunDir
from tests.same_run import differences
from tests.tiny import TINY

STEPS = 100
SETTINGS = [
    *TINY,
    f"train.duration={STEPS} steps",
    "checkpoint.every=10 steps",
    "eval.every=100%",
    "distributed.timeout=8",
]
PORT = 29777


def can_make_namespaces() -> bool:
    if os.geteuid():
        return False
    try:
        made = subprocess.run(["ip", "netns", "add", "fs_can"], capture_output=True)
        subprocess.run(["ip", "netns", "del", "fs_can"], capture_output=True)
    except OSError:
        return False
    return made.returncode == 0


pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not can_make_namespaces(), reason="needs root and ip netns"),
]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Names of two namespaces with a cable between them: 10.77.0.1 and 10.77.0.2 on device cable."""
    names = [f"fs{os.getpid()}_{number}" for number in (1, 2)]
    try:
        for name in names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "cable", "netns", names[1])
        for number, name in enumerate(names, start=1):
            ip("-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def start(host: str, number: int, run: Path, log: Path) -> subprocess.Popen[bytes]:
    words = [part for setting in SETTINGS for part in ("--set", setting)]
    with log.open("wb") as file:
        return subprocess.Popen(
            [
                *("ip", "netns", "exec", host, sys.executable, "-m", "torch.distributed.run"),
                *("--nnodes", "2", "--node-rank", str(number), "--nproc-per-node", "1"),
                *("--master-addr", "10.77.0.1", "--master-port", str(PORT), "-m", "--", "facescale", "train"),
                *("--device", "cpu", "--threads", "1", "--run", str(run), *words),
            ],
            env={**os.environ, "GLOO_SOCKET_IFNAME": "cable", "OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def wait_until(condition: object, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def end(processes: list[subprocess.Popen[bytes]], names: list[str]) -> None:
    """Nothing goes on running in the namespaces."""
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for name in names:
        found = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
        for pid in found.stdout.split():
            os.kill(int(pid), signal.SIGKILL)


def test_a_cut_link_is_said_on_both_hosts_and_the_run_goes_on(hosts: list[str], tmp_path: Path) -> None:
    run, logs = RunDir(tmp_path / "cut"), [tmp_path / "1.log", tmp_path / "2.log"]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        processes = [start(*pair, run.path, log) for *pair, log in zip(hosts, (0, 1), logs, strict=True)]
        assert wait_until(lambda: run.steps() and run.steps()[-1] >= 20, 120), logs[0].read_text()
        ip("-n", hosts[1], "link", "set", "cable", "down")
        said = [
            wait_until(lambda log=log: "facescale: " in log.read_text(), 90)  # type: ignore[misc]
            for log in logs
        ]
        texts = [log.read_text() for log in logs]
        assert all(said), texts
        for text in texts:
            (sentence,) = {line for line in text.splitlines() if line.startswith("facescale: ")}
            assert "start the same command again" in sentence
            assert "rank 1 on host " in sentence or "torchrun at 10.77.0.1" in sentence
        end(processes, hosts)
        assert run.steps()[-1] < STEPS

        ip("-n", hosts[1], "link", "set", "cable", "up")
        processes = [start(*pair, run.path, log) for *pair, log in zip(hosts, (0, 1), logs, strict=True)]
        assert [process.wait(300) for process in processes] == [0, 0], logs[0].read_text()
        whole = tmp_path / "whole"
        processes = [start(*pair, whole, log) for *pair, log in zip(hosts, (0, 1), logs, strict=True)]
        assert [process.wait(300) for process in processes] == [0, 0]
        assert differences(whole, run.path) == []
    finally:
        end(processes, hosts)
