"""Opening data by a few words, and sets made of sets."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from facescale.config import DataConfig
from facescale.data import READERS, open_reader, open_training_data
from facescale.data.loading.decode import decode
from facescale.data.readers.base import Reader, identity_names
from facescale.data.readers.combine import ConcatReader, SubsetReader, with_min_images
from facescale.data.readers.folder import FolderReader
from facescale.data.readers.recordio import RecordReader
from facescale.data.writers.recordio import write_records
from facescale.prepare.convert_data import convert_data


def test_a_path_tells_its_kind(make_folder, make_reader, tmp_path):
    folder = make_folder()
    write_records(make_reader([0, 1]), tmp_path / "rec")
    for spec in (folder, str(folder), f"folder:{folder}"):
        assert isinstance(open_reader(spec), FolderReader)
    for spec in (
        tmp_path / "rec",
        f"{tmp_path}/rec",
        f"{tmp_path}/rec/train.rec",
        f"rec:{tmp_path}/rec/train.rec",
    ):
        assert isinstance(open_reader(spec), RecordReader)


def example(scheme: str, folder: Path) -> str:
    """A spec for every scheme: a new reader needs an entry here to be tested."""
    if scheme in ("folder", "synthetic"):
        return f"folder:{folder}" if scheme == "folder" else "synthetic:ids=3,images=2"
    form, what = {
        "rec": ("recordio", "/train.rec"),
        "lmdb": ("lmdb", ""),
        "shards": ("shards", "/train-{000000..000000}.tar"),
        "stream": ("shards", "/train-{000000..000000}.tar?window=4"),
        "parquet": ("parquet", "/train-00000.parquet"),
        "list": ("list", "/train.lst"),
        "webface": ("webface", "?roots=0-2"),
    }[scheme]
    packed = convert_data(open_reader(folder), folder.parent / "packed", form=form).folder
    return f"{scheme}:{packed}{what}"


@pytest.mark.parametrize("scheme", READERS)
def test_every_reader_obeys_the_protocol(scheme: str, make_folder):
    reader = open_reader(example(scheme, make_folder()))
    assert isinstance(reader, Reader)
    assert len(reader) == 6
    assert reader.num_ids == 3
    assert reader.ids.dtype == np.int64
    assert reader.ids.shape == (6,)
    assert set(reader.ids.tolist()) == {0, 1, 2}
    assert len({reader.key(i) for i in range(6)}) == 6
    assert len(identity_names(reader)) == 3
    copy = pickle.loads(pickle.dumps(reader))
    for index in range(6):
        data, identity = reader[index]
        assert identity == reader.ids[index]
        assert decode(data).dtype == np.uint8
        assert np.array_equal(decode(copy[index][0]), decode(data))


@pytest.mark.parametrize("joined", [True, False])
def test_several_sources_keep_their_identities_apart(make_folder, joined: bool):
    first, second = make_folder(), make_folder({"ann/1.jpg": b"x", "zoe/1.jpg": b"y"}, name="more")
    reader = open_reader(f"{first} + {second}" if joined else [first, str(second)])
    assert isinstance(reader, Reader)
    assert len(reader) == 8
    assert reader.num_ids == 5
    assert reader.ids.tolist() == [0, 0, 1, 1, 1, 2, 3, 4]
    assert reader[7] == (b"y", 4)
    assert reader[0] == open_reader(first)[0]
    assert reader.key(6) == f"{second}/ann/1.jpg"
    assert list(reader.names)[2:4] == [f"{first}/cy", f"{second}/ann"]


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_beyond_joined_sources_is_refused(make_reader, index: int):
    with pytest.raises(IndexError, match=f"index {index} is out of range for 3 images"):
        ConcatReader([make_reader([0]), make_reader([0, 1])], ["a", "b"])[index]


def test_identities_with_few_images_can_be_left_out(make_folder):
    reader = open_reader(make_folder(), min_images=2)
    assert reader.num_ids == 2
    assert reader.ids.tolist() == [0, 0, 1, 1, 1]
    assert list(identity_names(reader)) == ["ann", "bob"]
    larger = open_reader(make_folder(), min_images=3)
    assert larger.ids.tolist() == [0, 0, 0]
    assert list(identity_names(larger)) == ["bob"]
    assert larger.key(2) == "bob/2.jpg"
    assert larger[2] == (open_reader(make_folder())[4][0], 0)


def test_a_set_that_has_enough_images_is_left_as_it_is(make_reader):
    reader = make_reader([0, 0, 1, 1])
    assert with_min_images(reader, 2) is reader


def test_nothing_left_is_refused(make_reader):
    with pytest.raises(ValueError, match="no identity has 4 images, the largest has 3; lower min_images"):
        with_min_images(make_reader([0, 0, 0, 1]), 4)


def test_a_subset_names_identities_by_number_where_the_source_has_no_names(make_reader):
    subset = SubsetReader(make_reader([5, 2, 5, 0]), np.array([0, 1]))
    assert list(subset.names) == ["2", "5"]
    assert subset[0][1] == 1


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (
            "/no/such/place",
            "data '/no/such/place' does not exist; give a folder, a .rec file, or one of: folder:",
        ),
        ("synthetic", "data 'synthetic' does not exist"),
        ("C:/faces", "data 'C:/faces' does not exist"),
        (
            "synthetik:ids=3",
            r"unknown data scheme 'synthetik' \(did you mean 'synthetic'\?\); choose one of: folder, rec",
        ),
        ("s3:bucket", "unknown data scheme 's3'; choose one of: folder, rec, lmdb, shards"),
        ([], "no training data given; name a folder"),
    ],
)
def test_what_cannot_be_opened_is_answered_in_one_sentence(spec, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        open_reader(spec)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "faces.zip").write_bytes(b"PK")
    with pytest.raises(
        ValueError, match=r"faces.zip' is not a .rec file; give a folder of identity folders or a .rec file"
    ):
        open_reader(tmp_path / "faces.zip")


@pytest.mark.parametrize(
    "name", ["C++ faces", "Tom + Jerry", "synthetic:ids=3", "rec:x", "a=b?root=c", "50%25&x"]
)
def test_a_folder_that_exists_wins_over_what_its_name_could_mean(
    make_folder, monkeypatch, tmp_path, name: str
):
    make_folder(name=name)
    monkeypatch.chdir(tmp_path)
    assert isinstance(open_reader(name), FolderReader)
    assert open_reader(f"{name} + {name}").num_ids == 6


def test_data_of_a_config_that_does_not_exist_is_told_with_the_option_that_names_it():
    with pytest.raises(
        ValueError, match=r"data 'faces/' does not exist; .*; your own data: --set data\.train="
    ):
        open_training_data(DataConfig(train="faces/"))


def test_a_text_that_is_too_long_for_a_path_is_answered_like_any_other():
    with pytest.raises(ValueError, match="does not exist; give a folder"):
        open_reader("x" * 5000)
    assert len(open_reader("synthetic:ids=2,images=2," + "," * 5000)) == 4
