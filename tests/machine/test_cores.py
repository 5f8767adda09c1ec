"""How many cores are free: affinity, hyper-threads, quotas of containers."""

import os
from pathlib import Path

import pytest

from facescale.machine import cores


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four cores with two threads each, without quota."""
    for cpu in range(8):
        folder = tmp_path / "cpu" / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{cpu % 4},{cpu % 4 + 4}\n")
    (tmp_path / "cgroup").mkdir()
    monkeypatch.setattr(cores, "_TOPOLOGY", tmp_path / "cpu")
    monkeypatch.setattr(cores, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    return tmp_path


def test_hyper_threads_of_a_core_count_once(system: Path) -> None:
    assert cores.free_cores() == (4, "4 physical cores")


def test_the_affinity_of_the_process_is_a_limit(system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 1}, raising=False)
    assert cores.free_cores() == (2, "affinity to 2 cores")


@pytest.mark.parametrize(
    ("text", "expected"), [("max 100000", None), ("250000 100000", 2.5), ("50000 100000", 0.5), ("?", None)]
)
def test_a_quota_of_control_groups_of_version_2(system: Path, text: str, expected: float | None) -> None:
    (system / "membership").write_text("0::/\n")
    (system / "cgroup" / "cpu.max").write_text(text + "\n")
    assert cores.cpu_quota() == expected
    if expected is not None:
        number, why = cores.free_cores()
        assert number == max(1, int(expected)) and f"quota of {expected:g} processors" in why


def test_the_least_quota_on_the_way_to_the_root_counts(system: Path) -> None:
    (system / "membership").write_text("0::/user/job\n")
    (system / "cgroup" / "user" / "job").mkdir(parents=True)
    (system / "cgroup" / "user" / "job" / "cpu.max").write_text("300000 100000\n")
    (system / "cgroup" / "user" / "cpu.max").write_text("200000 100000\n")
    assert cores.cpu_quota() == 2.0


def test_a_quota_of_control_groups_of_version_1(system: Path) -> None:
    (system / "membership").write_text("4:memory:/docker/1\n3:cpu,cpuacct:/docker/1\n")
    folder = system / "cgroup" / "cpu,cpuacct"
    folder.mkdir()
    (folder / "cpu.cfs_quota_us").write_text("300000\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    assert cores.cpu_quota() == 3.0
    (folder / "cpu.cfs_quota_us").write_text("-1\n")
    assert cores.cpu_quota() is None


def test_a_system_that_says_nothing_counts_its_processors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_TOPOLOGY", "_CGROUP", "_MEMBERSHIP"):
        monkeypatch.setattr(cores, name, tmp_path / "nothing")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert cores.free_cores()[0] == 3
