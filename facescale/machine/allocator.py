"""Tell glibc's allocator to keep memory that is freed instead of giving it back to the system at once.

A training step allocates and frees the same large blocks over and over. By default glibc maps each from the
system and unmaps it again, and the kernel fills every page with zeros each time: 40 % of the time of a
MobileFaceNet training step on a CPU, more of an evaluation.
"""

import ctypes
import os
import platform
import sys
from collections.abc import Callable, Mapping

# mallopt's parameters (malloc.h)
_TRIM_THRESHOLD = -1
_TOP_PAD = -2
_MMAP_MAX = -4

_KEEP = 2**31 - 1  # bytes at the end of the heap that stay: all
_PAD = 64 << 20  # bytes asked for beyond what is needed

_OTHERS = ("jemalloc", "tcmalloc", "mimalloc", "hoard")


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> tuple[bool, str]:
    """Set glibc's allocator so; what the user has set stays.

    Returns:
        Whether it was set, and why (not).
    """
    preloaded = environment.get("LD_PRELOAD", "")
    other = next((name for name in _OTHERS if name in preloaded), None)
    if other:
        return False, f"{other} is loaded"
    if any(key.startswith("MALLOC_") for key in environment) or "malloc" in environment.get(
        "GLIBC_TUNABLES", ""
    ):
        return False, "set by the environment"
    mallopt = _mallopt()
    if mallopt is None:
        return False, "the C library is not glibc"
    done = mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _KEEP) and mallopt(_TOP_PAD, _PAD)
    return bool(done), "freed blocks are used again" if done else "glibc refused"


def _mallopt() -> Callable[[int, int], int] | None:
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    function = ctypes.CDLL(None).mallopt
    function.argtypes, function.restype = (ctypes.c_int, ctypes.c_int), ctypes.c_int
    return function
