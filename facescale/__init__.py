"""facescale: train face recognition on millions of identities, on the hardware you have.

``facescale.load`` gives a trained model; ``facescale.backbones``, ``.heads``, ``.margins``, ``.data``,
``.pools`` and ``.evaluate`` are the parts. Each is imported when it is first used, so that
``import facescale`` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from facescale.inference.load import load

    __version__: str

_PARTS = ("backbones", "data", "evaluate", "heads", "margins", "pools", "prepare")

__all__ = ["backbones", "data", "evaluate", "heads", "load", "margins", "pools", "prepare"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from facescale.inference.load import load

        return load
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("facescale")
        except PackageNotFoundError:  # run from a folder that was not installed
            return "0+unknown"
    if name in _PARTS:
        return importlib.import_module(f"facescale.{name}")
    raise AttributeError(f"module 'facescale' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
