"""Settings of threads and memory: chosen for the user, never against what the user set."""

import subprocess
import sys

import pytest

from facescale.machine import settings as tuning
from facescale.machine.allocator import keep_freed_memory

FAULTS = """
import os, resource, sys
from facescale.machine import tune
environment = dict(MALLOC_TRIM_THRESHOLD_="131072") if sys.argv[1] == "users" else os.environ
settings = {one.name: one for one in tune(environment)}
import numpy as np

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        np.ones(1 << 23)  # 64 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults(), settings["memory"].value, sep=";")
"""


def faults(case: str) -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-c", FAULTS, case], capture_output=True, text=True, check=True)
    number, value = done.stdout.strip().split(";")
    return int(number), value


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_used_again_without_asking_the_system() -> None:
    number, value = faults("ours")
    assert value == "kept" and number < 100
    number, value = faults("users")
    assert value == "as the system does" and number > 300


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"MALLOC_ARENA_MAX": "2"}, "set by the environment"),
        ({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, "set by the environment"),
        ({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}, "jemalloc is loaded"),
    ],
)
def test_an_allocator_that_the_user_chose_is_left_alone(environment: dict[str, str], why: str) -> None:
    assert keep_freed_memory(environment) == (False, why)


@pytest.fixture
def before_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    monkeypatch.setattr(tuning, "free_cores", lambda: (6, "6 physical cores"))
    monkeypatch.setattr(tuning, "keep_freed_memory", lambda environment: (True, "why"))


def test_threads_are_the_free_cores_and_sleep_while_they_wait(before_torch: None) -> None:
    environment: dict[str, str] = {}
    threads, waiting, memory = tuning.tune(environment)
    assert environment == {"OMP_NUM_THREADS": "6", "OMP_WAIT_POLICY": "PASSIVE"}
    assert (threads.value, threads.why) == ("6", "6 physical cores")
    assert (waiting.value, memory.value) == ("sleep", "kept")
    assert [threads.variable, waiting.variable, memory.variable] == [*environment, ""]


def test_processes_of_one_machine_share_its_cores(before_torch: None) -> None:
    environment = {"LOCAL_WORLD_SIZE": "4"}
    tuning.tune(environment)
    assert environment["OMP_NUM_THREADS"] == "1"


@pytest.mark.parametrize("key", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_a_number_of_threads_that_the_user_set_stays(before_torch: None, key: str) -> None:
    environment = {key: "3"}
    threads = tuning.tune(environment)[0]
    assert environment == {key: "3", "OMP_WAIT_POLICY": "PASSIVE"}
    assert (threads.value, threads.why, threads.variable) == ("3", f"set by {key}", "")


@pytest.mark.parametrize("key", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_a_way_of_waiting_that_the_user_set_stays(before_torch: None, key: str) -> None:
    environment = {key: "7", "OMP_NUM_THREADS": "1"}
    waiting = tuning.tune(environment)[1]
    assert environment == {key: "7", "OMP_NUM_THREADS": "1"} and waiting.why == f"set by {key}"
    assert not waiting.variable


def test_once_torch_is_loaded_threads_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "keep_freed_memory", lambda environment: (True, "why"))
    monkeypatch.setitem(sys.modules, "torch", sys)
    environment: dict[str, str] = {}
    assert [one.why for one in tuning.tune(environment)[:2]] == ["torch is loaded already"] * 2
    assert environment == {}


def test_importing_facescale_sets_nothing_and_a_command_does() -> None:
    code = (
        "import os, facescale; before = dict(os.environ); import facescale.cli; assert before == os.environ"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    code = (
        "import os, sys; [os.environ.pop(k, 0) for k in ('OMP_WAIT_POLICY', 'OMP_NUM_THREADS')]; "
        "sys.argv = ['facescale', 'config']; from facescale.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], os.environ['OMP_NUM_THREADS'] != '')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "PASSIVE True"
