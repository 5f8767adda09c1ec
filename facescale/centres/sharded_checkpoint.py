"""Checkpoints of class centres: every row under the number of its identity, for any number of processes."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facescale.centres import disk, distcp, row_files
from facescale.centres.store import CentreStore
from facescale.centres.wanted import Wanted


def save(store: CentreStore, folder: Path) -> None:
    """Write rows and their optimizer's state into ``folder/centres``; all processes call.

    Rows in memory become safetensors files of some rows each (``row_files``), listed in ``centres.json``;
    rows on disk become a snapshot of what changed (``DiskRows.save``). Neither holds a pickle.
    """
    folder = folder / "centres"
    store.flush()
    if store.dist.is_main:
        folder.mkdir(parents=True, exist_ok=True)
    store.dist.barrier()
    if store.disk:
        records, rows = store.dist.all_reduce(
            torch.tensor(store.disk.count_records(), device=store.dist.device)
        ).tolist()
        store.disk.save(folder, store.dist.rank, compact=records > 2 * rows)
    else:
        assert store.memory is not None
        saved = {field.name: store.memory.tensors[field.name] for field in store.fields if field.saved}
        row_files.write_blocks(folder, saved, store.first_row)
    if store.dist.is_main:
        if store.disk:
            disk.write_layout(folder, store.fields, store.disk.record_bytes)
        meta: dict[str, Any] = {
            "num_ids": store.num_ids,
            "dim": store.dim,
            "rows_per_id": store.rows_per_id,
        }
        if store.memory:
            meta["files"] = row_files.block_names(store.num_ids, store.rows_per_id, store.dist.world_size)
        (folder / "centres.json").write_text(json.dumps(meta), encoding="utf-8")
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
        meta = json.loads((folder / "centres.json").read_text("utf-8"))
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
    store.flush()
    wanted = Wanted(store, old_ids)
    on_disk = (folder / "disk.json").is_file()
    if on_disk:
        blocks = disk.saved_blocks(folder)
    elif "files" in meta:
        blocks = row_files.read_blocks(folder, meta["files"], wanted)
    else:  # of a version up to 0.1
        blocks = distcp.read_blocks(folder, wanted)
    for old_row_R, fields in blocks:
        rows, place = wanted.find(old_row_R)
        if len(rows):
            store.write_back(
                rows, store.rows_from(rows, {name: value[place] for name, value in fields.items()})
            )
    store.flush()
    if store.disk and on_disk and old_ids is None:
        store.disk.adopt(folder, store.dist.is_main)
    store.dist.barrier()
