"""Tests of compiled loops where numba is installed, and of what replaces them where it is not."""

import pytest

from facescale.kernels import available

COMPILED = [True, False] if available() else [False]  # values of a parameter "numba"
needs_numba = pytest.mark.skipif(not available(), reason="skipped: numba is not installed")
