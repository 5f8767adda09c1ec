"""Checkpoints of class centres: every row under the number of its identity, for any number of processes."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata

from facescale.centres import disk
from facescale.centres.store import CentreStore
from facescale.distributed import Dist

# N rows of this process, R rows of a block

_BLOCK = 16384  # rows per tensor


def save(store: CentreStore, folder: Path) -> None:
    """Write rows and their optimiser's state into ``folder/centres``; all processes call.

    Rows in memory become a torch.distributed.checkpoint of blocks of rows, named by plane and first row; rows
    on disk become a snapshot of what changed (``DiskRows.save``).
    """
    folder = folder / "centres"
    store.settle()
    if store.dist.is_main:
        folder.mkdir(parents=True, exist_ok=True)
    store.dist.barrier()
    if store.disk:
        records, rows = store.dist.all_reduce(
            torch.tensor(store.disk.tally(), device=store.dist.device)
        ).tolist()
        store.disk.save(folder, store.dist.rank, compact=records > 2 * rows)
    else:
        assert store.memory is not None
        blocks = {}
        for plane in store.planes:
            for start in range(0, store.num_rows if plane.saved else 0, _BLOCK):
                values = store.memory.tensors[plane.name][start : start + _BLOCK]
                blocks[f"{plane.name}/{store.first_row + start:015d}"] = values
        store.dist.save_tensors(blocks, folder)
    if store.dist.is_main:
        if store.disk:
            disk.write_layout(folder, store.planes, store.disk.record_bytes)
        meta = {"num_ids": store.num_ids, "dim": store.dim, "rows_per_id": store.rows_per_id}
        (folder / "centres.json").write_text(json.dumps(meta))
    store.dist.barrier()


def load(store: CentreStore, folder: Path, old_ids: Tensor | None = None) -> None:
    """Read what ``save`` wrote, whatever the placement and number of processes then and now.

    Args:
        store: a fresh store; rows that the checkpoint does not have stay as they are.
        folder: as given to ``save``.
        old_ids: see ``ClassHead.inherit_rows``; None: the same identities.

    Raises:
        ValueError: nothing was saved there, or it does not fit.
    """
    folder = folder / "centres"
    try:
        meta = json.loads((folder / "centres.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"no class centres in {folder} ({error}); use a whole checkpoint") from None
    for key, mine in (("dim", store.dim), ("rows_per_id", store.rows_per_id)):
        if meta[key] != mine:
            raise ValueError(
                f"{key} of the saved class centres is {meta[key]}, of this head {mine}; make the head alike"
            )
    if old_ids is None and meta["num_ids"] != store.num_ids:
        raise ValueError(
            f"the checkpoint has {meta['num_ids']} identities and this head {store.num_ids}; give old_ids "
            "to say who is who (-1 for new people)"
        )
    if old_ids is not None and (
        len(old_ids) != store.num_ids or int(old_ids.max()) >= meta["num_ids"] or int(old_ids.min()) < -1
    ):
        raise ValueError(
            f"old_ids must hold {store.num_ids} numbers from -1 to {meta['num_ids'] - 1}; got {len(old_ids)} "
            f"from {int(old_ids.min())} to {int(old_ids.max())}"
        )
    store.settle()
    wanted = _Wanted(store, old_ids)
    on_disk = (folder / "disk.json").is_file()
    blocks = disk.saved_blocks(folder) if on_disk else _memory_blocks(folder, store.dist, wanted)
    for old_row_R, planes in blocks:
        rows, place = wanted.find(old_row_R)
        if len(rows):
            store.put(rows, store.filled(rows, {name: value[place] for name, value in planes.items()}))
    store.settle()
    if store.disk and on_disk and old_ids is None:
        store.disk.adopt(folder, store.dist.is_main)
    store.dist.barrier()


class _Wanted:
    """Which saved rows this process wants, and where they go."""

    def __init__(self, store: CentreStore, old_ids: Tensor | None) -> None:
        self._first_row, self._num_rows = store.first_row, store.num_rows
        self._old_row: Tensor | None = None
        if old_ids is not None:
            mine = old_ids[store.first_id : store.stop_id]
            known = torch.nonzero(mine >= 0)[:, 0]
            self._old_row, order = store.rows_of(mine[known]).sort(stable=True)
            self._row = store.rows_of(known)[order]

    def overlaps(self, start: int, stop: int) -> bool:
        """Whether any of the saved rows start to stop is wanted."""
        if self._old_row is None:
            return start < self._first_row + self._num_rows and stop > self._first_row
        at = torch.searchsorted(self._old_row, torch.tensor([start, stop]))
        return bool(at[0] < at[1])

    def find(self, old_row_R: Tensor) -> tuple[Tensor, Tensor]:
        """Local rows that want some of the given saved rows (ascending), and the places of these."""
        if self._old_row is None:
            place = torch.nonzero(
                (old_row_R >= self._first_row) & (old_row_R < self._first_row + self._num_rows)
            )[:, 0]
            return old_row_R[place] - self._first_row, place
        start = int(torch.searchsorted(self._old_row, old_row_R[0]))
        stop = int(torch.searchsorted(self._old_row, old_row_R[-1], right=True))
        old, rows = self._old_row[start:stop], self._row[start:stop]
        place = torch.searchsorted(old_row_R, old)
        there = old_row_R[place] == old
        return rows[there], place[there]


def _memory_blocks(folder: Path, dist: Dist, wanted: _Wanted) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Blocks of a distributed checkpoint that hold wanted rows, as (global rows, planes)."""
    blocks: dict[int, dict[str, TensorStorageMetadata]] = {}
    for key, entry in FileSystemReader(folder).read_metadata().state_dict_metadata.items():
        name, _, number = key.partition("/")
        if isinstance(entry, TensorStorageMetadata) and wanted.overlaps(
            int(number), int(number) + entry.size[0]
        ):
            blocks.setdefault(int(number), {})[name] = entry
    for first, entries in sorted(blocks.items()):
        planes = {
            name: torch.empty(entry.size, dtype=entry.properties.dtype) for name, entry in entries.items()
        }
        dist.load_tensors({f"{name}/{first:015d}": tensor for name, tensor in planes.items()}, folder)
        yield torch.arange(first, first + len(planes["rows"])), planes
