"""Fixtures that every test may use."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of reference numbers; tests that ask for it are skipped where it is absent."""
    path = SHARED / "golden"
    if not path.is_dir():
        pytest.skip("skipped: no parity data")
    return path


@pytest.fixture(scope="session")
def faces() -> Path:
    """Folder of real photographs; tests that ask for it are skipped where it is absent."""
    path = SHARED / "faces"
    if not path.is_dir():
        pytest.skip("skipped: no parity data")
    return path


pytest_plugins = ["tests.tiny", "tests.pictures", "tests.commands", "tests.browser", "tests.local_cluster"]
