"""Damage that opening a set does not find: checksums, indexes, records, keys."""

from pathlib import Path

import pytest

from facescale.data import open_reader
from facescale.data.readers import lmdb_set, recordio
from facescale.data.readers.saved_index import load_index, save_index, state_of
from facescale.data.readers.shard_index import state_of_files
from facescale.data.writers import FILES, WRITERS
from facescale.prepare.convert_data import convert_data
from facescale.prepare.verify import verify_data


@pytest.fixture
def packed(make_reader, tmp_path):
    source = make_reader([0, 0, 1, 1, 1, 2])
    return lambda form: convert_data(source, tmp_path / form, form=form).folder


@pytest.mark.parametrize("form", WRITERS)
def test_a_whole_set_has_no_problems(packed, form: str):
    folder = packed(form)
    assert verify_data(str(folder)) == []
    assert (folder / "manifest.json").is_file() == (form not in FILES)


@pytest.mark.parametrize(
    ("form", "name"),
    [("recordio", "train.rec"), ("shards", "train-000000.tar"), ("parquet", "train-00000.parquet")],
)
def test_a_changed_bit_of_an_image_is_found(packed, form: str, name: str):
    folder = packed(form)
    data = bytearray((folder / name).read_bytes())
    data[700] ^= 1  # within the first image
    (folder / name).write_bytes(data)
    assert f"'{folder}': {name} is not what was written (its checksum differs)" in verify_data(f"{folder}")


def _index(folder: Path) -> list[str]:
    (folder / "manifest.json").unlink()
    return (folder / "train.idx").read_text().splitlines()


def test_an_index_that_swaps_two_records_is_found(packed):
    folder = packed("im2rec")
    lines = _index(folder)
    (a, x), (b, y) = (line.split("\t") for line in lines[:2])
    (folder / "train.idx").write_text("\n".join([f"{a}\t{y}", f"{b}\t{x}", *lines[2:]]) + "\n")
    open_reader(folder)
    (problem,) = verify_data(str(folder))
    assert f"gives 2 records another key than they have, at byte {x}, {y}" in problem


def test_a_set_without_an_index_is_walked(packed):
    folder = packed("recordio")
    (folder / "manifest.json").unlink()
    (folder / "train.idx").unlink()
    assert verify_data(str(folder)) == []


def test_keys_that_the_list_of_a_database_leaves_out_are_counted(packed):
    folder = packed("lmdb")
    (folder / "manifest.json").unlink()
    listing = folder / "train_kv.txt"
    listing.write_text("".join(listing.read_text().splitlines(keepends=True)[:4]))
    (problem,) = verify_data(str(folder))
    assert problem == f"'{folder}' stores 6 values, and its list names 4 keys"


def test_a_kept_index_of_other_shards_is_found(packed):
    folder = packed("shards")
    files = open_reader(folder).files
    (kept,) = folder.glob(".facescale-*.index")
    state = state_of_files(files)
    columns = dict(load_index([kept], state, {}))
    save_index([kept], state, {**columns, "id": columns["id"][::-1]})
    (problem,) = verify_data(str(folder))
    assert f"is not that of its files; remove '{kept}' or" in problem


_REC, _LIST = (recordio, ["train.rec", "train.idx"]), (lmdb_set, ["train_kv.txt"])
_COLUMNS = {"recordio": (_REC, ("id", "offset", "label")), "lmdb": (_LIST, ("id", "ends", "label"))}


@pytest.mark.parametrize(
    ("form", "module", "source", "column"),
    [(form, *files, column) for form, (files, columns) in _COLUMNS.items() for column in columns],
)
def test_a_kept_index_of_other_records_is_found(
    packed, monkeypatch, form: str, module, source: list[str], column: str
):
    monkeypatch.setattr(module, "WORTH_SAVING", 6)
    folder = packed(form)
    open_reader(folder)
    assert verify_data(str(folder)) == []
    (kept,) = folder.glob(".facescale-*.index")
    state = state_of(*(folder / name for name in source))
    columns = dict(load_index([kept], state, {}))
    wrong = columns[column].copy()
    wrong[1] = wrong[2]
    save_index([kept], state, {**columns, column: wrong})
    (problem,) = verify_data(str(folder))
    assert (
        f"the index kept for '{folder / source[0]}' is not that of its files; remove '{kept}' or" in problem
    )


def test_every_source_is_verified(packed):
    lmdb, shards = packed("lmdb"), packed("shards")
    (lmdb / "train_kv.txt").unlink()
    with pytest.raises(ValueError, match="lists of keys"):
        verify_data(f"{shards} + {lmdb}")
