"""Loops that numba compiles, and kernels that Triton compiles, where these are installed.

Where they are not (numba: facescale[fast]; Triton comes with torch for CUDA) torch or NumPy does the same.
"""

import importlib
import importlib.util
from types import ModuleType

DIGIT_BITS = 12
"""Bits of a row's number that choose one of the 4096 start values, or of the masks on them."""


def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None


def loops(name: str) -> ModuleType | None:
    """The module ``name`` of this package, or None without numba; the first call imports numba."""
    return importlib.import_module(f"{__name__}.{name}") if available() else None


def gpu_kernels(name: str) -> ModuleType | None:
    """The module ``name`` of this package, or None without Triton; the first call imports Triton."""
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module(f"{__name__}.{name}")
