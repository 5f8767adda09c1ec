"""How many cores this process may use."""

import os
from collections.abc import Iterable
from pathlib import Path

_TOPOLOGY = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def free_cores() -> tuple[int, str]:
    """Cores to compute on, at least one, and what limits them.

    Hyper-threads of one core count once: two of them share the units that multiply. A container's quota of
    processor time (cgroup v1 and v2) and the affinity of the process are limits, too.
    """
    cpus = _affinity()
    cores = physical_cores(cpus)
    why = f"{cores} physical cores" if len(cpus) == (os.cpu_count() or 1) else f"affinity to {cores} cores"
    quota = cpu_quota()
    if quota is not None and quota < cores:
        return max(1, int(quota)), f"the container's quota of {quota:g} processors"
    return max(1, cores), why


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def physical_cores(cpus: Iterable[int]) -> int:
    """Distinct cores behind logical processors; each counts as one where the system does not say."""
    cores: set[str] = set()
    for cpu in cpus:
        try:
            cores.add((_TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    return len(cores)


def cpu_quota() -> float | None:
    """Processors that the control group grants, or None without a limit: the least on the way to the root."""
    try:
        lines = _MEMBERSHIP.read_text().splitlines()
    except OSError:
        return None
    quotas: list[float] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = _CGROUP / controllers if controllers else _CGROUP
        for folder in _upwards(root, path):
            quota = _v1(folder) if controllers else _v2(folder)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _upwards(root: Path, path: str) -> list[Path]:
    """The group's folder and all above it; in a container only the root is there."""
    here = root / path.lstrip("/")
    return [folder for folder in (here, *here.parents) if folder == root or root in folder.parents]


def _v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
