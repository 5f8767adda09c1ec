"""Scripts of benchmarks/ as modules: they import one another by name."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@contextmanager
def benchmark_scripts(*names: str) -> Iterator[dict[str, ModuleType]]:
    """Import some scripts, and forget them at the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        try:
            yield {name: import_module(name) for name in names}
        finally:
            for name in names:
                sys.modules.pop(name, None)
