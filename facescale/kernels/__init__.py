"""Loops that numba compiles, and kernels that Triton compiles, where these are installed.

Where they are not (numba: facescale[fast]; Triton comes with torch for CUDA) torch or NumPy does the same.
"""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loops need no torch, which takes seconds to import
    import torch

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


@cache
def agree(
    name: str, check: Callable[..., None], module: ModuleType, device: "torch.device", dim: int
) -> bool:
    """Whether kernels compile for a GPU and agree with torch; the first call waits for it.

    Args:
        name: of the kernels, for the warning if they do not.
        check: called with module, device, precision of the products, ``dim`` and tolerance; raises where the
            kernels differ from torch.
        module: the kernels.
        device: the GPU.
        dim: numbers of a row.
    """
    import torch

    try:
        check(module, device, torch.bfloat16, dim, tolerance=0.05)
    except Exception as error:  # whatever a compiler or a driver raises: the other way is always there
        reason = str(error).partition("\n")[0] or type(error).__name__
        warnings.warn(f"{name} do not run on {device} ({reason}); slower ones do", stacklevel=2)
        return False
    return True
