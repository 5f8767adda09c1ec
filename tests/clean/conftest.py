"""Fixtures of the tests of ``facescale clean``."""

from tests.clean.patterns import planted, with_coarse_model  # noqa: F401
