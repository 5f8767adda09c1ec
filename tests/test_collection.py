"""What pytest collects."""

from fnmatch import fnmatch
from pathlib import Path

import pytest


def test_pytest_looks_into_every_folder_of_tests(pytestconfig: pytest.Config) -> None:
    """It passes over folders that are called build, dist or venv."""
    passed_over = pytestconfig.getini("norecursedirs")
    folders = {path.name for path in Path(__file__).parent.rglob("*") if path.is_dir()}
    assert "wiring" in folders
    assert [name for name in folders for pattern in passed_over if fnmatch(name, pattern)] == []
