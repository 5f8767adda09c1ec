"""The store of class centres: start values, checkpoints, snapshots of rows on disk, errors."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from facescale.centres import sharded_checkpoint as centres_saved
from facescale.centres.initial import InitialRows
from facescale.centres.options import StoreOptions
from facescale.centres.store import CentreStore
from facescale.distributed import Dist

N, D = 301, 8


def make(
    path: Path | None = None, num_ids: int = N, dim: int = D, rows_per_id: int = 1, **options: Any
) -> CentreStore:
    if path is not None:
        options |= {"placement": "disk", "directory": path}
    return CentreStore(num_ids, dim, Dist(), StoreOptions(**options), rows_per_id=rows_per_id)


def move(store: CentreStore, rows: torch.Tensor, step: int = 0) -> None:
    store.begin_update(step)
    block = store.open(rows)
    store.update(rows, block, torch.ones(len(rows), store.dim) * (step + 1), lr=0.1)
    store.end_step(0.1)


def everything(store: CentreStore) -> dict[str, torch.Tensor]:
    store.flush()
    return {name: field.clone() for name, field in store.open(torch.arange(store.num_rows)).fields.items()}


def assert_same(store: CentreStore, expected: dict[str, torch.Tensor]) -> None:
    for name, field in everything(store).items():
        assert torch.equal(field, expected[name]), name


def test_start_values_are_normal_and_rows_unrelated() -> None:
    rows = InitialRows(64, 3 * 4096**2, seed=5)(torch.arange(0, 3 * 4096**2, 12_345))
    assert abs(rows.mean()) < 1e-4
    assert abs(rows.std() - 0.01) < 1e-4
    unit = torch.nn.functional.normalize(rows)
    cos = (unit @ unit.T).fill_diagonal_(0)
    assert cos.abs().max() < 0.8
    assert abs(cos.square().mean() * 64 - 1) < 0.02  # 1 / D for independent directions


def test_a_start_value_depends_on_seed_and_row_only() -> None:
    some = InitialRows(8, 100_000, seed=1)(torch.tensor([70_000, 3]))
    assert torch.equal(some, InitialRows(8, 100_000, seed=1)(torch.tensor([3, 70_000])).flip(0))
    assert not torch.equal(some, InitialRows(8, 100_000, seed=2)(torch.tensor([70_000, 3])))


def test_a_file_on_disk_takes_room_for_trained_rows_only(tmp_path: Path) -> None:
    store = make(tmp_path, num_ids=1_000_000, dim=512)
    move(store, torch.tensor([3, 500_000, 999_999]))
    store.flush()
    move(store, torch.tensor([3, 700_000]))  # one that has a record and one that gets the next
    store.flush()
    rows, numbers = (os.stat(tmp_path / "process_0" / name) for name in ("rows.bin", "numbers.bin"))
    assert rows.st_size == 4 * 4096
    assert numbers.st_size == 1_000_000 * 4
    assert numbers.st_blocks * 512 < 100_000


def test_rows_on_disk_equal_rows_in_memory(tmp_path: Path) -> None:
    stores = make(tmp_path), make()
    for step in range(5):
        rows = torch.arange(step, N, 7)
        for store in stores:
            move(store, rows, step)
            store.prefetch(torch.arange(step + 1, N, 7))
    assert_same(stores[0], everything(stores[1]))


def test_rows_that_were_fetched_ahead_and_changed_meanwhile_are_read_again(tmp_path: Path) -> None:
    store, plain = make(tmp_path), make()
    rows = torch.arange(0, 100, 2)
    order, block = store.gather(rows)
    assert block is not None
    ahead = torch.arange(0, 100, 5)
    store.prefetch(ahead)  # reads rows that the step below moves
    store.update(order, block, torch.ones(50, D), 0.1)
    move(plain, rows)
    order, block = store.gather(torch.arange(0, 100, 4), ahead)
    assert block is not None
    assert torch.equal(block.fields["momentum"], plain.open(order).fields["momentum"])
    assert order.sort().values.tolist() == list(range(0, 100, 4))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("there", ["memory", "disk"])
@pytest.mark.parametrize("here", ["memory", "disk"])
def test_a_checkpoint_of_one_placement_loads_into_another(
    here: str, there: str, optimizer: str, tmp_path: Path
) -> None:
    saved = make(tmp_path / "a" if there == "disk" else None, optimizer=optimizer)
    for step in range(3):
        move(saved, torch.arange(step, N, 5), step)
    centres_saved.prepare(saved, tmp_path, copy=False).write()
    loaded = make(tmp_path / "b" if here == "disk" else None, optimizer=optimizer)
    centres_saved.load(loaded, tmp_path)
    assert_same(loaded, everything(saved))


def test_a_snapshot_of_rows_on_disk_writes_what_changed_and_links_the_rest(tmp_path: Path) -> None:
    store = make(tmp_path / "work")
    move(store, torch.arange(200))
    centres_saved.prepare(store, tmp_path / "1", copy=False).write()
    first = everything(store)
    move(store, torch.arange(10), step=1)
    centres_saved.prepare(store, tmp_path / "2", copy=False).write()
    files = sorted((tmp_path / "2" / "centres").glob("*.records"))
    assert [path.stat().st_size // store.disk.record_bytes for path in files] == [200, 10]
    assert files[0].stat().st_ino == (tmp_path / "1" / "centres" / files[0].name).stat().st_ino
    again = make(tmp_path / "again")
    centres_saved.load(again, tmp_path / "1")  # the older one is as it was
    assert_same(again, first)
    centres_saved.load(again, tmp_path / "2")
    assert_same(again, everything(store))


def test_a_resumed_store_on_disk_goes_on_from_the_files_of_its_snapshot(tmp_path: Path) -> None:
    store = make(tmp_path / "work")
    move(store, torch.arange(200))
    centres_saved.prepare(store, tmp_path / "1", copy=False).write()
    resumed = make(tmp_path / "work")  # the old working files are gone, as after a crash
    centres_saved.load(resumed, tmp_path / "1")
    move(resumed, torch.arange(190, 200), step=1)
    centres_saved.prepare(resumed, tmp_path / "2", copy=False).write()
    files = sorted((tmp_path / "2" / "centres").glob("*.records"))
    assert [path.stat().st_size // store.disk.record_bytes for path in files] == [200, 10]
    last = make(tmp_path / "last")
    centres_saved.load(last, tmp_path / "2")
    assert_same(last, everything(resumed))


def test_snapshots_do_not_grow_without_end(tmp_path: Path) -> None:
    store = make(tmp_path / "work")
    for step in range(8):
        move(store, torch.arange(100), step)
        centres_saved.prepare(store, tmp_path / str(step), copy=False).write()
    sizes = [
        sum(path.stat().st_size for path in (tmp_path / str(step) / "centres").glob("*.records"))
        for step in range(8)
    ]
    assert max(sizes) <= 2 * 100 * store.disk.record_bytes
    last = make(tmp_path / "last")
    centres_saved.load(last, tmp_path / "7")
    assert_same(last, everything(store))


def test_what_was_written_after_a_snapshot_is_not_in_it(tmp_path: Path) -> None:
    for name, path in (("memory", None), ("disk", tmp_path / "work")):
        store = make(path)
        move(store, torch.arange(50))
        expected = everything(store)
        centres_saved.prepare(store, tmp_path / name, copy=False).write()
        move(store, torch.arange(50), step=1)
        loaded = make()
        centres_saved.load(loaded, tmp_path / name)
        assert_same(loaded, expected)


def test_an_error_of_the_writing_thread_reaches_the_caller(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.disk.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        move(store, torch.arange(5))
        store.flush()


def test_rows_on_disk_of_which_none_ever_changed_are_saved(tmp_path: Path) -> None:
    store = make(tmp_path / "rows")
    for name in ("1", "2"):
        centres_saved.prepare(store, tmp_path / name, copy=False).write()
        loaded = make()
        centres_saved.load(loaded, tmp_path / name)
        assert_same(loaded, everything(store))


def test_a_snapshot_that_is_damaged_is_one_sentence(tmp_path: Path) -> None:
    store = make(tmp_path / "rows")
    move(store, torch.arange(5))
    centres_saved.prepare(store, tmp_path / "saved", copy=False).write()
    (file,) = (tmp_path / "saved/centres").glob("*.records")
    for content in (file.read_bytes()[:-1], b""):
        file.unlink()
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"class centres in .* cannot be read .*; use an earlier"):
            centres_saved.load(make(), tmp_path / "saved")


def test_checkpoints_that_do_not_fit_are_refused_in_a_sentence(tmp_path: Path) -> None:
    centres_saved.prepare(make(), tmp_path, copy=False).write()
    for store, old_ids, words in (
        (make(dim=9), None, "dim of the saved class centres is 8, of this head 9"),
        (make(rows_per_id=2), None, "rows_per_id of the saved class centres is 1, of this head 2"),
        (make(num_ids=9), None, "the checkpoint has 301 identities and this head 9; give old_ids"),
        (make(num_ids=2), torch.tensor([0, 301]), "old_ids must hold 2 numbers from -1 to 300; got 2 from 0"),
    ):
        with pytest.raises(ValueError, match=words):
            centres_saved.load(store, tmp_path, old_ids)
    with pytest.raises(
        ValueError,
        match=r"centres.json': No such file or directory; use a whole checkpoint",
    ):
        centres_saved.load(make(), tmp_path / "nowhere")
