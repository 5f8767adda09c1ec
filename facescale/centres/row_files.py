"""Blocks of class-centre rows as safetensors files, named by the rows that they hold."""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from facescale.centres.wanted import Wanted
from facescale.distributed import Dist
from facescale.files import follow_umask
from facescale.guard.tensor_file import read_tensors

BLOCK = 1 << 16  # rows per file: what is copied at a time where rows are on a GPU

_NAME = re.compile(r"rows-(\d{15})-(\d{15})\.safetensors")


def block_names(num_ids: int, rows_per_id: int, world_size: int) -> list[str]:
    """Names of the files that all processes together write."""
    names = []
    for rank in range(world_size):
        first, stop = (id * rows_per_id for id in Dist(rank, world_size).shard(num_ids))
        names += [_name(start, min(start + BLOCK, stop)) for start in range(first, stop, BLOCK)]
    return names


def write_blocks(folder: Path, tensors: Mapping[str, Tensor], first_row: int) -> list[Path]:
    """Write this process's rows, a file at a time.

    Args:
        folder: where; other processes write theirs there, too.
        tensors: values of all rows (N, width) by what they are.
        first_row: global number of the first one.

    Returns:
        The files.
    """
    paths = []
    num_rows = len(next(iter(tensors.values())))
    for start in range(0, num_rows, BLOCK):
        stop = min(start + BLOCK, num_rows)
        values = {name: tensor[start:stop].detach().cpu().contiguous() for name, tensor in tensors.items()}
        path = folder / _name(first_row + start, first_row + stop)
        save_file(values, path)
        follow_umask(path)
        paths.append(path)
    return paths


def read_blocks(
    folder: Path, names: Iterable[str], wanted: Wanted
) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """(global rows, values by what they are) of every file that holds wanted rows.

    Raises:
        ValueError: a file is missing, damaged, or not what its name says.
    """
    for name in names:
        match = _NAME.fullmatch(name)
        if not match:
            raise ValueError(f"{folder} names '{name}' as a file of class centres; use a whole checkpoint")
        first, stop = int(match[1]), int(match[2])
        if not wanted.overlaps(first, stop):
            continue
        try:
            values = read_tensors(folder / name, "the class centres")[0]
        except ValueError as error:
            raise ValueError(
                f"class centres {folder / name} cannot be read ({error}); use an earlier checkpoint"
            ) from None
        if "rows" not in values or any(len(x) != stop - first or x.ndim != 2 for x in values.values()):
            raise ValueError(f"class centres {folder / name} are not the rows {first} to {stop - 1}")
        yield torch.arange(first, stop), values


def _name(first: int, stop: int) -> str:
    return f"rows-{first:015d}-{stop:015d}.safetensors"
