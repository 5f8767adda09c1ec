"""Choose the settings of threads and memory for this process."""

import os
import sys
from collections.abc import MutableMapping
from dataclasses import dataclass

from facescale.machine.allocator import keep_freed_memory
from facescale.machine.cores import free_cores

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_WAITING = "OMP_WAIT_POLICY"
_SPINNING = ("GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@dataclass(frozen=True)
class Setting:
    """One setting of the process.

    Attributes:
        name: what is set.
        value: to what.
        why: the reason, or who set it.
        variable: of the environment, where this process set it.
    """

    name: str
    value: str
    why: str
    variable: str = ""


def tune(environment: MutableMapping[str, str] = os.environ) -> list[Setting]:
    """Set up threads and memory of this process for training and evaluation; call before torch is imported.

    What the user has set (environment variables of OpenMP, MKL and glibc, another allocator) stays as it is.
    Processes that this one starts inherit the settings of threads.

    Args:
        environment: of the process; OpenMP reads it when torch is loaded.

    Returns:
        What was chosen, and why.
    """
    loaded = "torch" in sys.modules
    kept, why = keep_freed_memory(environment)
    memory = Setting("memory", "kept" if kept else "as the system does", why)
    return [_threads(environment, loaded), _waiting(environment, loaded), memory]


def _threads(environment: MutableMapping[str, str], loaded: bool) -> Setting:
    given = next((key for key in _THREADS if key in environment), None)
    if given:
        return Setting("threads", environment[given], f"set by {given}")
    cores, why = free_cores()
    here = max(1, cores // _positive(environment.get("LOCAL_WORLD_SIZE", "1")))
    if loaded:
        return Setting("threads", "as torch chose", "torch is loaded already")
    environment[_THREADS[0]] = str(here)
    return Setting("threads", str(here), why, _THREADS[0])


def _waiting(environment: MutableMapping[str, str], loaded: bool) -> Setting:
    given = next((key for key in (_WAITING, *_SPINNING) if key in environment), None)
    if given:
        return Setting("waiting threads", environment[given], f"set by {given}")
    if loaded:
        return Setting("waiting threads", "as torch chose", "torch is loaded already")
    environment[_WAITING] = "PASSIVE"
    why = "threads that spin collapse when another program runs"
    return Setting("waiting threads", "sleep", why, _WAITING)


def _positive(text: str) -> int:
    return int(text) if text.isdigit() and int(text) > 0 else 1
