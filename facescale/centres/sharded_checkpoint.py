"""Checkpoints of class centres: every row under the number of its identity, for any number of processes."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from facescale.centres import disk_snapshot, distcp, row_files
from facescale.centres.row_optim import catch_up
from facescale.centres.store import CentreStore
from facescale.centres.wanted import Wanted
from facescale.files import Writing, follow_umask, write_atomically
from facescale.guard.reading import read_object

_DENSE = "dense.safetensors"


def prepare(store: CentreStore, folder: Path, copy: bool) -> Writing:
    """Rows and their optimizer's state, ready to be written to ``folder/centres``; all processes call.

    Rows in memory become safetensors files of some rows each (``row_files``), listed in ``centres.json``;
    rows on disk become a snapshot of what changed (``DiskRows.save``). Neither holds a pickle.

    Args:
        store: whose rows.
        folder: the checkpoint.
        copy: copy what is in memory, so that the store may change before it is written.
    """
    folder = folder / "centres"
    store.flush()
    if store.disk:
        records, rows = store.dist.all_reduce(
            torch.tensor(store.disk.count_records(), device=store.dist.device)
        ).tolist()
        folder.mkdir(parents=True, exist_ok=True)
        rows_to_write = store.disk.save(folder, store.dist.rank, compact=records > 2 * rows)
    else:
        assert store.memory is not None
        folder.mkdir(parents=True, exist_ok=True)
        saved = {field.name: store.memory.tensors[field.name] for field in store.fields}
        if copy:
            saved = {name: tensor.detach().to("cpu", copy=True) for name, tensor in saved.items()}
        num_bytes = sum(tensor.nbytes for tensor in saved.values())
        rows_to_write = Writing(num_bytes, partial(row_files.write_blocks, folder, saved, store.first_row))
    if not store.dist.is_main:
        return rows_to_write
    products_4T = store.dense.products if store.dense else None
    return Writing(
        rows_to_write.num_bytes, lambda: [*rows_to_write.write(), *_describe(store, folder, products_4T)]
    )


def _describe(store: CentreStore, folder: Path, products_4T: Tensor | None) -> list[Path]:
    """Note what all processes save; returns the files."""
    paths = []
    if products_4T is not None:
        paths.append(folder / _DENSE)
        save_file({"products": products_4T}, paths[0])
        follow_umask(paths[0])
    meta: dict[str, Any] = {"num_ids": store.num_ids, "dim": store.dim, "rows_per_id": store.rows_per_id}
    if store.disk:
        paths.append(disk_snapshot.write_layout(folder, store.fields, store.disk.record_bytes))
    else:
        meta["files"] = row_files.block_names(store.num_ids, store.rows_per_id, store.dist.world_size)
    write_atomically(folder / "centres.json", json.dumps(meta))
    return [*paths, folder / "centres.json"]


def _read_meta(file: Path) -> dict[str, Any]:
    keys = ("num_ids", "dim", "rows_per_id")
    meta = read_object(file, "the class centres", *keys, advice="use a whole checkpoint")
    counts = [meta[key] for key in keys]
    files = meta.get("files", [])
    is_named = isinstance(files, list) and all(isinstance(name, str) for name in files)
    if not is_named or not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(f"'{file}' is damaged (it does not describe class centres); use a whole checkpoint")
    return meta


def _dense_products(folder: Path) -> Tensor | None:
    """What dense decay would have done in each step, if the rows were saved as they were last moved."""
    file = folder / _DENSE
    if not file.is_file():
        return None
    try:
        return load_file(file)["products"]
    except (OSError, SafetensorError, LookupError):
        raise ValueError(f"'{file}' is damaged; use an earlier checkpoint") from None


def _caught_up(values: dict[str, Tensor], products_4T: Tensor) -> dict[str, Tensor]:
    """Rows and momentum as dense decay leaves them now."""
    wide = {name: value.float() if value.is_floating_point() else value for name, value in values.items()}
    catch_up(products_4T, wide)
    return {name: value for name, value in wide.items() if name != "last"}


def load(store: CentreStore, folder: Path, old_ids: Tensor | None = None) -> None:
    """Read what ``prepare`` wrote, whatever the placement and number of processes then and now.

    Args:
        store: a fresh store; rows that the checkpoint does not have stay as they are.
        folder: as given to ``prepare``.
        old_ids: see ``ClassHead.inherit_rows``; None: the same identities.

    Raises:
        ValueError: nothing was saved there, or it does not fit.
    """
    folder = folder / "centres"
    meta = _read_meta(folder / "centres.json")
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
    products_4T = _dense_products(folder)
    goes_on = store.dense is not None and old_ids is None  # rows stay as far behind as they were
    if store.dense and goes_on and products_4T is not None:
        store.dense.restore(products_4T)
    wanted = Wanted(store, old_ids)
    on_disk = (folder / "disk.json").is_file()
    if on_disk:
        blocks = disk_snapshot.saved_blocks(folder)
    elif "files" in meta:
        blocks = row_files.read_blocks(folder, meta["files"], wanted)
    else:  # of a version up to 0.1
        blocks = distcp.read_blocks(folder, wanted)
    for old_row_R, fields in blocks:
        rows, place = wanted.find(old_row_R)
        if len(rows):
            values = {name: value[place] for name, value in fields.items()}
            if products_4T is not None and not goes_on:
                values = _caught_up(values, products_4T)
            store.write_back(rows, store.rows_from(rows, values))
    store.flush()
    if store.disk and on_disk and old_ids is None:
        store.disk.adopt(folder, store.dist.is_main)
    store.dist.barrier()
