"""Several processes of one command: who speaks, how they end, and what ends them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from facescale.machine import processes
from facescale.machine.processes import run_processes

pytestmark = pytest.mark.timeout(60)


def run(script: str, count: int = 2, **environment: str) -> int:
    begin = "import os, signal, sys, time; rank = int(os.environ['RANK']); "
    return run_processes([sys.executable, "-c", begin + script], count, {**os.environ, **environment})


def test_each_process_is_told_its_place_and_the_first_one_speaks(capfd: pytest.CaptureFixture[str]) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR")
    told = f"print(*(os.environ[name] for name in {names}))"
    # What is left of another launch in the environment does not count
    assert run(f"{told}; print('to stderr', rank, file=sys.stderr)", 3, WORLD_SIZE="1", RANK="0") == 0
    out, err = capfd.readouterr()
    assert out == "0 0 3 3 127.0.0.1\n" and err == "to stderr 0\n"


def test_no_process_looks_for_the_store_of_a_torchrun_that_started_this_one() -> None:
    assert (
        run("sys.exit('TORCHELASTIC_USE_AGENT_STORE' in os.environ)", TORCHELASTIC_USE_AGENT_STORE="True")
        == 0
    )


@pytest.mark.parametrize(
    ("script", "status", "told"),
    [
        ("sys.exit('wrong input' if rank else 0)", 1, "wrong input\n"),
        ("print('wrong input', rank, file=sys.stderr); sys.exit(2)", 2, "wrong input 0\n"),
        ("rank or time.sleep(0.5); sys.exit('the other left' if rank == 0 else 3)", 3, "the other left\n"),
        ("rank and os.kill(os.getpid(), signal.SIGSEGV)", 139, ""),
    ],
)
def test_the_first_failure_is_the_status_and_is_told_once(
    script: str, status: int, told: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(script) == status
    assert capfd.readouterr().err == told


@pytest.mark.parametrize("deaf", ["", "signal.signal(signal.SIGTERM, signal.SIG_IGN); "])
def test_processes_that_wait_for_a_dead_one_are_ended(deaf: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_GRACE_S", 0.3)
    began = time.monotonic()
    assert run(f"{deaf}sys.exit(4) if rank else time.sleep(50)") == 4
    assert time.monotonic() - began < 20


LAUNCHER = """
import os, sys
from facescale.machine.processes import run_processes
script = '''
import os, signal, sys, time
path = os.path.join(sys.argv[1], os.environ["RANK"])
def end(number, frame):
    open(path + ".end", "w").write(str(number))
    sys.exit(130)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, end)
open(path + ".pid", "w").write(str(os.getpid()))
time.sleep(50)
'''
sys.exit(run_processes([sys.executable, "-c", script, sys.argv[1]], 2, os.environ))
"""


def until(paths: list[Path]) -> None:
    deadline = time.monotonic() + 20
    while not all(path.exists() and path.read_text() for path in paths):
        assert time.monotonic() < deadline, f"not all of {paths} came"
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_to_the_launcher_ends_all(number: signal.Signals, tmp_path: Path) -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, str(tmp_path)])
    until([tmp_path / "0.pid", tmp_path / "1.pid"])
    launcher.send_signal(number)
    until([tmp_path / "0.end", tmp_path / "1.end"])
    assert launcher.wait(20) == (-signal.SIGKILL if number == signal.SIGKILL else 130)
    # One that is killed cannot pass anything on: then the kernel asks the processes to end.
    passed = signal.SIGTERM if number == signal.SIGKILL else number
    assert {(tmp_path / f"{rank}.end").read_text() for rank in (0, 1)} == {str(int(passed))}
