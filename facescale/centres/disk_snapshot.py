"""How the records of rows on disk are laid out, and reading the records of a snapshot."""

import json
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from facescale.centres.layout import BLOCK, RowField
from facescale.files import write_atomically

_ALIGN = 16  # bytes; every record starts at a multiple


def record_bytes(fields: Sequence[RowField]) -> int:
    """Bytes that all planes of one row take in the file."""
    return -(-starts(fields)[-1] // _ALIGN) * _ALIGN


def starts(fields: Sequence[RowField]) -> list[int]:
    """First byte of each field in a record, and of what follows the last."""
    return [0, *accumulate(-(-field.bytes // 4) * 4 for field in fields)]


def write_layout(folder: Path, fields: Sequence[RowField], record_bytes: int) -> Path:
    """Note how the records of a snapshot are laid out; returns the file."""
    layout = {
        "record_bytes": record_bytes,
        "planes": [[p.name, p.width, str(p.dtype).removeprefix("torch.")] for p in fields],
    }
    write_atomically(folder / "disk.json", json.dumps(layout))
    return folder / "disk.json"


def saved_blocks(folder: Path) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """All records of a snapshot as (global rows, planes), oldest first: later ones replace earlier ones.

    Raises:
        ValueError: a file is damaged.
    """
    blocks = _read_blocks(folder)
    while True:
        try:
            block = next(blocks, None)
        except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"class centres in {folder} cannot be read ({reason}); use an earlier checkpoint"
            ) from None
        if block is None:
            return
        yield block


def _read_blocks(folder: Path) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    layout = json.loads((folder / "disk.json").read_text("utf-8"))
    size = int(layout["record_bytes"])
    fields = [RowField(name, width, getattr(torch, dtype)) for name, width, dtype in layout["planes"]]
    start = starts(fields)
    for path in sorted(folder.glob("disk-*.npy")):
        row_N = np.load(path)
        with path.with_suffix(".records").open("rb") as file:
            for first in range(0, len(row_N), BLOCK):
                row_R = torch.from_numpy(row_N[first : first + BLOCK])
                record_RX = torch.frombuffer(bytearray(file.read(size * len(row_R))), dtype=torch.uint8)
                record_RX = record_RX.view(len(row_R), size)
                fields_R = {
                    p.name: record_RX[:, at : at + p.bytes].view(p.dtype)
                    for p, at in zip(fields, start, strict=False)
                }
                yield row_R, fields_R
