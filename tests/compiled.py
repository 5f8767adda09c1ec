"""Tests of compiled loops and kernels where numba and Triton are, and of what replaces them elsewhere."""

import os
from types import ModuleType

import pytest

from facescale.kernels import available, gpu_kernels

COMPILED = [True, False] if available() else [False]  # values of a parameter "numba"
needs_numba = pytest.mark.skipif(not available(), reason="skipped: numba is not installed")


def interpreted(name: str) -> ModuleType:
    """A module of Triton kernels that its interpreter runs on the CPU; see ``conftest.py``."""
    if os.environ.get("TRITON_INTERPRET") != "1":
        pytest.skip("skipped: Triton compiles for the GPU here")
    module = gpu_kernels(name)
    if module is None:
        pytest.skip("skipped: Triton is not installed")
    return module
