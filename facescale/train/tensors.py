"""Nested dicts of tensors: write them, copy them, count their bytes."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class _Written:
    """A file as torch.save takes it; remembers the error that torch replaces by one of its own."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._file = path.open("wb")

    def write(self, data: Any) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def save_tensors(tensors: Any, path: Path) -> Path:
    """Write what torch.load reads with ``weights_only``; returns ``path``."""
    file = _Written(path)
    try:
        torch.save(tensors, file)  # type: ignore[arg-type]
        file.close()
    except RuntimeError:
        raise file.error or OSError(f"'{path}' could not be written") from None
    return path


def copied(tree: Any) -> Any:
    """Nested dicts, lists and tuples with a copy of every tensor, in host memory."""
    if isinstance(tree, Tensor):
        return tree.detach().to("cpu", copy=True)
    if isinstance(tree, dict):
        result = copy.copy(tree)  # of its own type: a state dict has attributes
        for key, value in tree.items():
            result[key] = copied(value)
        return result
    if isinstance(tree, list | tuple):
        return type(tree)(copied(value) for value in tree)
    return tree


def num_bytes(tree: Any) -> int:
    """Bytes of all tensors in nested dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        return tree.nbytes
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return sum(num_bytes(value) for value in values)
