"""Loops that numba compiles, where it is installed (facescale[fast]); without it torch does the same."""

import importlib.util


def available() -> bool:
    """Whether numba is installed."""
    return importlib.util.find_spec("numba") is not None
