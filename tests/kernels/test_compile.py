"""Triton's compiler takes the kernels and they fit a GPU that is not there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from facescale.kernels import gpu_kernels


@pytest.mark.slow
def test_all_kernels_compile_for_an_h100_and_fit_its_memory() -> None:
    if gpu_kernels("class_softmax") is None:
        pytest.skip("skipped: Triton is not installed")
    words = [sys.executable, "-m", "benchmarks.compile_kernels", "--targets", "90:512"]
    done = subprocess.run(
        words, capture_output=True, text=True, cwd=Path(__file__).parents[2], env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    of_rows, of_pool = ("unit_forward", "unit_backward", "attend"), ("renew", "nearest", "pull")
    for name in ("compare", "move_rows", "join", *of_rows, *of_pool):
        assert f"sm_90 {name}" in done.stdout
    assert "TOO LARGE" not in done.stdout
