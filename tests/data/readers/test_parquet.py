"""Parquet files of image rows, as Hugging Face data sets have them."""

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from facescale.data import open_reader
from facescale.data.readers.base import BadRecordError
from facescale.data.writers import parquet as writing
from facescale.prepare.convert_data import convert_data

pyarrow = pytest.importorskip("pyarrow")
from pyarrow import parquet  # noqa: E402

JPEG = b"\xff\xd8\xff"


@pytest.fixture
def packed(make_reader, tmp_path, monkeypatch) -> Path:
    """Ten images in files of four rows and groups of two."""
    monkeypatch.setattr(writing, "_GROUP", 2)
    monkeypatch.setattr(writing, "_FILE", 4)
    return convert_data(make_reader([0, 0, 1, 1, 1, 2, 2, 0, 1, 2]), tmp_path / "set", form="parquet").folder


def write(path: Path, **columns: object) -> Path:
    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_rows_of_several_files_come_back_in_order(packed, make_reader):
    assert len(list(packed.glob("*.parquet"))) == 3
    reader, source = open_reader(packed), make_reader([0, 0, 1, 1, 1, 2, 2, 0, 1, 2])
    assert [reader[i] for i in range(10)] == [source[i] for i in range(10)]
    assert [reader.key(i) for i in (0, 7, 9)] == [
        "train-00000.parquet#0",
        "train-00001.parquet#3",
        "train-00002.parquet#1",
    ]


def test_the_schema_is_that_of_hugging_face(packed):
    file = parquet.ParquetFile(packed / "train-00000.parquet")
    assert str(file.schema_arrow.field("image").type) == "struct<bytes: binary, path: string>"
    features = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": ["0", "1", "2"], "_type": "ClassLabel"}
    assert file.read_row_group(0).column("image")[1].as_py()["path"] == "memory/1"


def test_threads_share_a_reader_and_a_forked_process_opens_its_own(packed, monkeypatch):
    monkeypatch.setattr("facescale.data.readers.parquet._CACHED", 1)  # one row group at a time
    reader = open_reader(packed)
    expected = [reader[i] for i in range(10)]
    with ThreadPoolExecutor(6) as pool:
        assert all(list(pool.map(reader.__getitem__, range(10))) == expected for _ in range(10))
    child = os.fork()
    if child == 0:
        os._exit(0 if [reader[i] for i in range(10)] == expected else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_columns_of_other_names_and_texts_as_labels(tmp_path):
    path = write(tmp_path / "x.parquet", picture=[JPEG, JPEG + b"1"], person=["zoe", "ann"])
    reader = open_reader(f"parquet:{path}?image=picture&label=person")
    assert (list(reader.names), reader[0], reader[1]) == (["ann", "zoe"], (JPEG, 1), (JPEG + b"1", 0))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"image": [JPEG]}, "has no column 'label'; it has: image; name the one of the label"),
        ({"imag": [JPEG], "label": [1]}, r"has no column 'image' \(did you mean 'imag'\?\)"),
        ({"image": [JPEG], "label": [0.5]}, "column 'label' of '.*' has empty labels or fractions"),
        ({"image": [JPEG, JPEG], "label": ["a", None]}, "has empty labels or fractions"),
        (
            {"image": pyarrow.array([], pyarrow.binary()), "label": pyarrow.array([], pyarrow.int64())},
            "holds no rows",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, columns: dict[str, object], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        open_reader(write(tmp_path / "x.parquet", **columns))


def test_a_row_without_an_image_is_a_bad_record(tmp_path):
    reader = open_reader(write(tmp_path / "x.parquet", image=[JPEG, None], label=[0, 0]))
    with pytest.raises(BadRecordError, match="row has no image"):
        reader[1]


def test_a_damaged_file_is_named(packed, tmp_path):
    data = bytearray((packed / "train-00001.parquet").read_bytes())
    data[4:300] = bytes(296)
    (packed / "train-00001.parquet").write_bytes(data)
    reader = open_reader(packed)
    with pytest.raises(BadRecordError, match=r"cannot read row group 0 of '.*train-00001.parquet'"):
        reader[4]
    (packed / "train-00001.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(
        ValueError, match=r"train-00001.parquet' is not a complete Parquet file: .*; copy it again"
    ):
        open_reader(packed)
    with pytest.raises(ValueError, match=r"'/no.parquet' is no .parquet file and holds none"):
        open_reader("parquet:/no.parquet")


def test_a_missing_package_is_named(packed, make_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ValueError, match=r"needs pyarrow; .* pip install 'facescale\[parquet\]'"):
        open_reader(packed)
    with pytest.raises(ValueError, match="writing Parquet needs pyarrow"):
        convert_data(open_reader(make_folder()), tmp_path / "new", form="parquet")
