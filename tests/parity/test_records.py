"""Our RecordIO reader and writer against files that the MXNet library itself wrote."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from facescale.data import open_reader
from facescale.data.readers.recordio import RecordReader
from facescale.data.writers.recordio import record_file, write_records

pytestmark = pytest.mark.shared


def manifest(golden: Path) -> dict[int, tuple[str, int, str]]:
    entries = json.loads((golden / "records" / "insightface" / "manifest.json").read_text())
    return {int(key): tuple(value) for key, value in entries.items()}


def copy_without_index(source: Path, folder: Path) -> Path:
    shutil.copy(source / "train.rec", folder / "train.rec")
    return folder / "train.rec"


@pytest.mark.parametrize("indexed", [True, False])
def test_every_image_of_the_insightface_set_is_read_byte_for_byte(
    golden: Path, tmp_path: Path, indexed: bool
):
    source = golden / "records" / "insightface"
    reader = RecordReader(source / "train.rec" if indexed else copy_without_index(source, tmp_path))
    expected = manifest(golden)
    assert len(reader) == len(expected) == 50
    assert reader.num_ids == 5
    for index, key in enumerate(sorted(expected)):
        image, identity = reader[index]
        assert reader.key(index) == f"train.rec#{key}"
        assert hashlib.sha256(image).hexdigest() == expected[key][2]
        assert identity == reader.ids[index] == expected[key][1]


@pytest.mark.parametrize("indexed", [True, False])
def test_every_image_of_the_im2rec_set_is_read_byte_for_byte(golden: Path, tmp_path: Path, indexed: bool):
    source = golden / "records" / "im2rec"
    reader = RecordReader(source / "train.rec" if indexed else copy_without_index(source, tmp_path))
    rows = [line.split("\t") for line in (source / "train.lst").read_text().splitlines()]
    expected = {int(key): (float(label), source / "images" / path) for key, label, path in rows}
    assert len(reader) == len(expected) == 50
    assert reader.num_ids == 5
    for index, key in enumerate(sorted(expected)):
        label, path = expected[key]
        image, identity = reader[index]
        assert reader.key(index) == f"train.rec#{key}"
        assert image == path.read_bytes()
        assert identity == label


def test_the_folder_of_the_same_images_gives_the_same_set(golden: Path):
    records = open_reader(golden / "records" / "im2rec")
    folder = open_reader(golden / "records" / "im2rec" / "images")
    assert np.array_equal(records.ids, folder.ids)
    assert all(records[i] == folder[i] for i in range(len(folder)))


def test_our_insightface_layout_is_mxnets_byte_for_byte(golden: Path, tmp_path: Path):
    source = golden / "records" / "insightface"
    write_records(open_reader(source / "images"), tmp_path)
    for name in ("train.rec", "train.idx", "property"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes(), name
    listed, expected = (
        [line.split("\t") for line in (folder / "train.lst").read_text().splitlines()]
        for folder in (tmp_path, source)
    )
    assert [(one, f"images/{path}", label) for one, path, label in listed] == [tuple(row) for row in expected]


def test_our_im2rec_records_are_mxnets_byte_for_byte(golden: Path, tmp_path: Path):
    source = golden / "records" / "im2rec"
    with record_file(tmp_path / "train.rec") as records:
        for line in (source / "train.lst").read_text().splitlines():
            key, label, path = line.split("\t")
            records.append(int(key), (float(label),), (source / "images" / path).read_bytes())
    for name in ("train.rec", "train.idx"):
        assert (tmp_path / name).read_bytes() == (source / name).read_bytes(), name
