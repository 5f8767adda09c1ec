"""Read safetensors files: the header within a limit, failures in a sentence."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from safetensors import safe_open
from torch import Tensor

from facescale.guard.limits import CARD_BYTES
from facescale.guard.reading import check_file, reading


@contextmanager
def open_tensors(path: str | os.PathLike[str], what: str) -> Iterator[Any]:
    """Open a safetensors file as ``safetensors.safe_open`` does, on the CPU.

    Args:
        path: the file.
        what: it is, for messages.

    Raises:
        ValueError: no such file, damaged, or a header beyond the limit; also of what is read inside.
    """
    check_file(path, what)
    with reading(path, what):
        with open(path, "rb") as file:
            (size,) = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))
        if size > CARD_BYTES:
            raise ValueError(
                f"cannot read {what} '{path}': its header claims {size:,} bytes, and {CARD_BYTES:,} are the"
                " most that is read; it is damaged or no safetensors file: get a complete copy of it"
            )
        with safe_open(path, "pt") as opened:
            yield opened


def read_tensors(path: str | os.PathLike[str], what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, and its metadata.

    Raises:
        ValueError: as `open_tensors`.
    """
    with open_tensors(path, what) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
