"""Rows that compiled loops move, read and write are those that torch's and Python's make."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facescale import heads, kernels, margins
from facescale.centres import disk, store
from facescale.centres.options import StoreOptions
from facescale.centres.record_index import RecordNumbers
from facescale.centres.store import CentreStore
from facescale.distributed import Dist
from facescale.heads.centre_head import CentreHead
from tests.compiled import COMPILED, needs_numba

C, D, B = 300, 48, 16

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("full", "cosface", {"products": "float32"}),
    ("full", "curricular", {"products": "bfloat16"}),
    ("full", "subcenter_arcface", {"products": "float32"}),
    ("partial_fc", "cosface", {"products": "float32", "rate": 0.3}),
    ("partial_fc", "cosface", {"products": "bfloat16", "rate": 0.3}),
    ("partial_fc", "subcenter_arcface", {"products": "bfloat16", "num_negatives": 40}),
]


def make(name: str, margin: str, **options: Any) -> CentreHead:
    torch.manual_seed(0)
    head = heads.build(name, C, D, margins.build(margin), Dist(), chunk=50, weight_decay=0.01, **options)
    assert isinstance(head, CentreHead)
    return head


def on_disk(folder: Path) -> StoreOptions:
    return StoreOptions(placement="disk", directory=folder)


def learn(head: CentreHead, parts: int) -> torch.Tensor:
    """Rows and momentum after three steps, each of some batches."""
    head.loss_scale = 4.0
    for step in range(3):
        for part in range(parts):
            generator = torch.Generator().manual_seed(10 * step + part)
            q_VBD = torch.randn(1, B, D, generator=generator).requires_grad_()
            (4 * head(q_VBD, torch.randint(0, C, (B,), generator=generator)).loss).backward()
        head.after_step(0.01)
    head.store.flush()
    fields = head.store.open(torch.arange(head.store.num_rows)).fields
    return torch.stack([fields[name] for name in ("rows", "momentum")])


@needs_numba
@pytest.mark.parametrize("placement", ["device", "host", "disk"])
@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("name", "margin", "options"), CASES)
def test_rows_moved_by_either_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    name: str,
    margin: str,
    options: dict[str, Any],
    parts: int,
    placement: str,
) -> None:
    where = (
        {"placement": placement, "directory": tmp_path} if placement == "disk" else {"placement": placement}
    )
    ours = make(name, margin, **options, **where)
    assert ours.store.fused is not None and ours.store.in_place == (placement == "device")
    monkeypatch.setattr(store, "available", lambda: False)  # as where numba is not installed
    plain = make(name, margin, **options)
    assert plain.store.fused is None
    expected, rows = learn(plain, parts), learn(ours, parts)
    loose = 2e-2 if options["products"] == "bfloat16" else 2e-5
    torch.testing.assert_close(rows, expected, rtol=0, atol=loose * float(expected[1].abs().max()))
    assert not torch.equal(rows[0], make(name, margin, **options).read_rows(torch.arange(C)))


@pytest.mark.parametrize(
    "options",
    [{"momentum": 0.0}, {"nesterov": True}, {"optimizer": "adamw"}, {"store_dtype": "bfloat16"}],
)
def test_other_optimizers_and_types_use_torch(options: dict[str, Any]) -> None:
    head = make("full", "cosface", **options)
    assert head.store.fused is None and not head.store.fuses


def test_several_threads_move_what_one_moves() -> None:
    one = learn(make("partial_fc", "cosface", rate=0.5, products="float32"), 1)
    torch.set_num_threads(3)
    try:
        three = learn(make("partial_fc", "cosface", rate=0.5, products="float32"), 1)
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(three, one, rtol=1e-4, atol=1e-5)


@needs_numba
@pytest.mark.parametrize("num_ids", [3000, 5_000_000])  # without masks, and with one
def test_records_read_and_written_by_either_are_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, num_ids: int
) -> None:
    def make_store(folder: str) -> CentreStore:
        return CentreStore(num_ids, 5, Dist(), on_disk(tmp_path / folder), seed=3)

    ours = make_store("ours")
    monkeypatch.setattr(disk.kernels, "available", lambda: False)
    plain = make_store("plain")
    some = torch.tensor([2, 999, num_ids - 1, 0])
    for step in range(3):
        for one in (ours, plain):
            block = one.open(some + (step if step < 2 else 0) * torch.tensor([1, 1, -1, 0]))
            one.update(some, block, torch.full((4, 5), 1.0 + step), 0.1)
            one.flush()
    wanted = torch.tensor([0, 1, 2, 3, 999, 1000, num_ids - 2, num_ids - 1])
    for name, field in ours.open(wanted).fields.items():
        assert torch.equal(field, plain.open(wanted).fields[name]), name


def test_a_file_that_is_too_short_is_noticed(tmp_path: Path) -> None:
    store = CentreStore(100, 8, Dist(), on_disk(tmp_path))
    store.update(rows := torch.tensor([1, 99]), store.open(rows), torch.ones(2, 8), 0.1)
    store.flush()
    os.truncate(tmp_path / "process_0" / "rows.bin", 100)
    with pytest.raises(ValueError, match="shorter than it should be"):
        store.open(rows)


def test_numba_is_looked_for_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.importlib.util, "find_spec", lambda name: None)
    assert not kernels.available()


@pytest.mark.parametrize("numba", COMPILED)
def test_records_stand_in_the_order_of_first_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, numba: bool
) -> None:
    """Rows of several steps, some new each time, in runs and alone, read back together and as a range."""
    monkeypatch.setattr(kernels, "available", lambda: numba)
    num_ids = 3000
    store = CentreStore(num_ids, 4, Dist(), on_disk(tmp_path))
    values = store.open(torch.arange(num_ids)).fields["rows"].clone()
    rng = torch.Generator().manual_seed(0)
    for step in range(5):
        rows = torch.randperm(num_ids, generator=rng)[:700].sort().values
        if step == 2:
            rows = torch.arange(100, 2500)  # a long run, longer than the system takes parts per call
        values[rows] = torch.randn(len(rows), 4, generator=rng)
        store.write_back(rows, store.rows_from(rows, {"rows": values[rows]}))
        store.flush()
    assert torch.equal(store.open(slice(0, num_ids)).fields["rows"], values)
    some = torch.randperm(num_ids, generator=rng)[:999].sort().values
    assert torch.equal(store.open(some).fields["rows"], values[some])
    assert store.disk is not None
    assert (
        store.disk.count_records()[1] * store.disk.record_bytes
        == (tmp_path / "process_0/rows.bin").stat().st_size
    )


@pytest.mark.parametrize("num_rows", [3000, 100_000])
def test_numbers_of_records_are_found_in_memory_and_in_the_file(tmp_path: Path, num_rows: int) -> None:
    """Few and many rows of a block are written out, more rows than the table holds are added at once."""

    def read(file: int, row_R: np.ndarray, at_R: np.ndarray, byte_RX: np.ndarray) -> None:
        for row, at in zip(row_R.tolist(), at_R.tolist(), strict=True):
            byte_RX[at] = np.frombuffer(os.pread(file, 4, row * 4), np.uint8)

    numbers = RecordNumbers(tmp_path / "numbers.bin", num_rows, read, recent=100)
    rows = np.random.default_rng(0).permutation(num_rows)[:700]
    done = 0
    for size in (1, 60, 60, 250, 99, 100, 130):
        numbers.add(rows[done : done + size])
        done += size
        some = np.random.default_rng(done).permutation(done)
        assert numbers.of(rows[some]).tolist() == some.tolist()
    assert numbers.count == done == 700
    numbers.close()
