"""Files of class-centre rows: what they hold, what is refused, and that reading them runs nothing."""

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint import state_dict_saver

from facescale.centres import row_files, sharded_checkpoint
from facescale.centres.options import StoreOptions
from facescale.centres.store import CentreStore
from facescale.distributed import Dist

N, D = 50, 8


def trained(**options: Any) -> CentreStore:
    store = CentreStore(N, D, Dist(), StoreOptions(**options))
    rows = torch.arange(0, N, 3)
    store.update(rows, store.open(rows), torch.ones(len(rows), D), 0.1)
    return store


def fields(store: CentreStore) -> dict[str, Tensor]:
    return {name: x.clone() for name, x in store.open(torch.arange(N)).fields.items()}


def loaded(folder: Path, **options: Any) -> CentreStore:
    store = CentreStore(N, D, Dist(), StoreOptions(**options), seed=1)
    sharded_checkpoint.load(store, folder)
    return store


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    sharded_checkpoint.prepare(trained(), tmp_path, copy=False).write()
    return tmp_path


@pytest.mark.parametrize("store_dtype", ["float32", "bfloat16", "float16"])
def test_rows_come_back_from_several_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store_dtype: str
) -> None:
    monkeypatch.setattr(row_files, "BLOCK", 7)
    store = trained(store_dtype=store_dtype)
    sharded_checkpoint.prepare(store, tmp_path, copy=False).write()
    assert len(list((tmp_path / "centres").glob("rows-*.safetensors"))) == 8
    for name, value in fields(loaded(tmp_path, store_dtype=store_dtype)).items():
        assert torch.equal(value, fields(store)[name]), name


def test_a_checkpoint_holds_no_pickle(saved: Path) -> None:
    names = sorted(path.name for path in (saved / "centres").iterdir())
    assert names == ["centres.json", "rows-000000000000000-000000000000050.safetensors"]


def test_a_file_that_is_missing_is_named(saved: Path) -> None:
    (saved / "centres" / "rows-000000000000000-000000000000050.safetensors").unlink()
    with pytest.raises(ValueError, match=r"rows-0+-0+50.safetensors cannot be read .* earlier checkpoint"):
        loaded(saved)


def test_a_file_that_is_cut_is_named(saved: Path) -> None:
    path = saved / "centres" / "rows-000000000000000-000000000000050.safetensors"
    os.truncate(path, path.stat().st_size - 10)
    with pytest.raises(ValueError, match="cannot be read"):
        loaded(saved)


def test_rows_of_another_place_are_refused(saved: Path) -> None:
    folder = saved / "centres"
    other = "rows-000000000000000-000000000000060.safetensors"
    (folder / "rows-000000000000000-000000000000050.safetensors").rename(folder / other)
    text = (folder / "centres.json").read_text()
    (folder / "centres.json").write_text(text.replace("50.safetensors", "60.safetensors"))
    with pytest.raises(ValueError, match="are not the rows 0 to 59"):
        loaded(saved)


def test_a_name_that_leads_elsewhere_is_refused(saved: Path) -> None:
    file = saved / "centres" / "centres.json"
    file.write_text(file.read_text().replace("rows-", "../rows-"))
    with pytest.raises(ValueError, match=r"names '../rows-.*' as a file of class centres"):
        loaded(saved)


# ---- of versions up to 0.1 ---------------------------------------------------------------------------------


@pytest.fixture
def old(saved: Path) -> Path:
    """The same rows as torch.distributed.checkpoint writes them, in blocks named by field and first row."""
    folder = saved / "centres"
    for path in folder.glob("rows-*"):
        path.unlink()
    (folder / "centres.json").write_text('{"num_ids": 50, "dim": 8, "rows_per_id": 1}')
    blocks = {
        f"{name}/{start:015d}": value[start : start + 20]
        for name, value in fields(trained()).items()
        for start in range(0, N, 20)
    }
    state_dict_saver.save(blocks, checkpoint_id=folder, no_dist=True)
    return saved


def test_an_old_checkpoint_is_read(old: Path) -> None:
    for name, value in fields(loaded(old)).items():
        assert torch.equal(value, fields(trained())[name]), name


class Evil:
    """A pickle that makes a folder when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("where", ["whole", "inside"])
def test_nothing_in_an_old_index_is_executed(old: Path, where: str) -> None:
    evil = Evil(old / "executed")
    file = old / "centres" / ".metadata"
    index = pickle.loads(file.read_bytes())
    index.planner_data = evil
    file.write_bytes(pickle.dumps(evil if where == "whole" else index))
    with pytest.raises(ValueError, match=r"cannot be read \(it asks to run posix\.mkdir.*use an earlier"):
        loaded(old)
    assert not (old / "executed").exists()


def test_nothing_in_an_old_file_is_executed(old: Path) -> None:
    (file,) = (old / "centres").glob("*.distcp")
    evil = pickle.dumps(Evil(old / "executed"))
    index = pickle.loads((old / "centres" / ".metadata").read_bytes())
    for info in index.storage_data.values():
        info.offset, info.length = 0, len(evil)
    (old / "centres" / ".metadata").write_bytes(pickle.dumps(index))
    file.write_bytes(evil)
    with pytest.raises(ValueError, match="cannot be read"):
        loaded(old)
    assert not (old / "executed").exists()


@pytest.mark.parametrize(
    "index",
    [b"", b"\x80\x04", b"not a pickle", pickle.dumps(3), pickle.dumps({"a": 1}), pickle.dumps([[]] * 3)],
)
def test_an_old_index_that_is_damaged_is_a_sentence(old: Path, index: bytes) -> None:
    (old / "centres" / ".metadata").write_bytes(index)
    with pytest.raises(ValueError, match=r"class centres in .* cannot be read \(.+\); use an earlier"):
        loaded(old)


def test_an_old_index_does_not_lead_outside(old: Path) -> None:
    (file,) = (old / "centres").glob("*.distcp")
    shutil.move(file, old / file.name)
    index = pickle.loads((old / "centres" / ".metadata").read_bytes())
    for info in index.storage_data.values():
        info.relative_path = f"../{file.name}"
    (old / "centres" / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(ValueError, match=r"'\.\./.*' is not the name of one of its files"):
        loaded(old)
