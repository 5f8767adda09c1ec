"""facescale.data.readers.saved_index: columns that are mapped, and believed only if they are whole."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from facescale.data import open_reader
from facescale.data.readers import lmdb_set, recordio
from facescale.data.readers.saved_index import compact, index_places, load_index, save_index, state_of
from facescale.prepare.convert_data import convert_data

LIMITS = {"id": 5, "far": 1 << 63}


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    return {
        "keys": np.frombuffer(b"abc", np.uint8),
        "id": np.array([0, 4, 2], np.int32),
        "far": np.array([1 << 40, 0, 7]),
        "none": np.empty(0, np.int64),
    }


def test_columns_come_back_as_they_were_and_any_tool_reads_them(columns, tmp_path: Path) -> None:
    place = tmp_path / "new" / "x.index"
    save_index([place], "state", columns)
    found = load_index([tmp_path / "missing", place], "state", LIMITS)
    for other in (found, pickle.loads(pickle.dumps(found)), load_file(place)):
        assert other.keys() == columns.keys()
        for name, column in columns.items():
            assert other[name].dtype == column.dtype and other[name].tolist() == column.tolist()
    found["id"][0] = 3  # does not reach the file
    assert load_index([place], "state", LIMITS)["id"].tolist() == [0, 4, 2]


def test_every_change_of_a_byte_of_numbers_or_of_the_header_is_found(columns, tmp_path: Path) -> None:
    place = tmp_path / "x.index"
    save_index([place], "state", columns)
    data = place.read_bytes()
    for at in range(len(data) - 3):  # the last three are those of strings
        place.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = load_index([place], "state", LIMITS)
        same = found is not None and all(
            np.array_equal(found[name], column) for name, column in columns.items() if name in found
        )
        assert found is None or (same and {"id", "far"} <= found.keys())
    for length in range(len(data)):
        place.write_bytes(data[:length])
        assert load_index([place], "state", LIMITS) is None


def test_another_state_a_missing_column_and_values_out_of_range_are_refused(columns, tmp_path: Path) -> None:
    place = tmp_path / "x.index"
    save_index([place], "state", columns)
    assert load_index([place], "other", LIMITS) is None
    assert load_index([place], "state", {"more": 1}) is None
    assert load_index([place], "state", {"id": 4}) is None
    save_index([place], "state", {"id": np.array([0, -1], np.int32)})
    assert load_index([place], "state", {"id": 5}) is None


def test_the_state_follows_the_files(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    first = state_of(a, b)
    b.write_bytes(b"")
    second = state_of(a, b)
    os.utime(a, ns=(0, 0))
    assert len({first, second, state_of(a, b)}) == 3


def test_numbers_are_narrow_where_they_fit() -> None:
    assert compact(np.array([0, (1 << 31) - 1])).dtype == np.int32
    assert compact(np.array([1 << 31])).dtype == np.int64
    assert compact(np.array([], np.int64)).dtype == np.int32


@pytest.mark.parametrize(
    ("form", "module"), [("recordio", recordio), ("im2rec", recordio), ("lmdb", lmdb_set)]
)
def test_a_large_set_opens_from_its_index_as_it_did_without(
    make_reader, tmp_path: Path, monkeypatch, form: str, module
) -> None:
    if form == "lmdb":
        pytest.importorskip("lmdb")
    folder = convert_data(make_reader([0, 0, 1, 3, 1, 3]), tmp_path / "set", form=form).folder
    plain = open_reader(folder)
    assert not list(folder.glob(".facescale-*"))
    monkeypatch.setattr(module, "WORTH_SAVING", 6)
    open_reader(folder)
    (kept,) = folder.glob(".facescale-*.index")
    with monkeypatch.context() as patch:
        patch.setattr(
            module,
            "build_list" if form == "lmdb" else "build_index",
            lambda *words: pytest.fail("built again"),
        )
        again = pickle.loads(pickle.dumps(open_reader(folder)))
    assert [again[i] for i in range(6)] == [plain[i] for i in range(6)]
    assert [again.key(i) for i in range(6)] == [plain.key(i) for i in range(6)]
    assert (again.num_ids, list(again.names)) == (plain.num_ids, list(plain.names))
    source = next(path for path in folder.iterdir() if path.name in ("train.rec", "train_kv.txt"))
    os.utime(source, ns=(0, 0))
    before = kept.read_bytes()
    assert [open_reader(folder)[i] for i in range(6)] == [plain[i] for i in range(6)]
    assert kept.read_bytes() != before


def test_an_index_of_a_url_is_in_the_cache_only(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (place,) = index_places(["s3://bucket/a.tar"])
    assert place.parent == tmp_path / "facescale"
