"""Folders of identity folders."""

import os
import pickle

import numpy as np
import pytest

from facescale.data.readers.base import BadRecordError, Reader
from facescale.data.readers.folder import FolderReader, read_file


def test_identities_and_images_come_in_the_order_of_their_names(make_folder):
    root = make_folder(
        {"b/2.jpg": b"b2", "b/10.PNG": b"b10", "a/x.webp": b"ax", "c/y.bmp": b"cy", "c/z.jpeg": b"cz"}
    )
    reader = FolderReader(root)
    assert isinstance(reader, Reader)
    assert list(reader.names) == ["a", "b", "c"]
    assert reader.num_ids == 3
    assert reader.ids.dtype == np.int64
    assert [reader[i] for i in range(len(reader))] == [
        (b"ax", 0),
        (b"b10", 1),
        (b"b2", 1),
        (b"cy", 2),
        (b"cz", 2),
    ]
    assert [reader.key(i) for i in range(5)] == ["a/x.webp", "b/10.PNG", "b/2.jpg", "c/y.bmp", "c/z.jpeg"]


def test_hidden_entries_other_files_and_empty_folders_are_passed_over(make_folder):
    root = make_folder(
        {"a/1.jpg": b"1", "a/.2.jpg": b"2", "a/notes.txt": b"", ".cache/3.jpg": b"3", "labels.json": b""}
    )
    (root / "empty").mkdir()
    reader = FolderReader(root)
    assert len(reader) == 1
    assert list(reader.names) == ["a"]


def test_a_set_split_into_several_roots_has_its_identities_below_them(make_folder):
    reader = FolderReader(make_folder({"0/0_7/a.jpg": b"x", "0/0_8/a.jpg": b"y", "1/1_7/a.jpg": b"z"}))
    assert list(reader.names) == ["0/0_7", "0/0_8", "1/1_7"]
    assert reader[2] == (b"z", 2)


def test_names_beyond_ascii_are_kept(make_folder):
    reader = FolderReader(make_folder({"Zoë Müller/été.jpg": b"x"}))
    assert reader.key(0) == "Zoë Müller/été.jpg"
    assert reader[0] == (b"x", 0)


def test_a_reader_survives_pickling(make_folder):
    reader = FolderReader(make_folder())
    copy = pickle.loads(pickle.dumps(reader))
    assert [copy[i] for i in range(len(copy))] == [reader[i] for i in range(len(reader))]


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.jpg": b"x"}, "holds 1 images outside of identity folders, such as 'a.jpg'; move them"),
        ({"a.jpg": b"x", "b/1.jpg": b"y"}, "holds 1 images outside of identity folders, such as 'a.jpg'"),
        (
            {".hidden": b"", "a/.x": b""},
            r"holds no images \(passed over: hidden files \(2\)\); it must hold one",
        ),
        ({"a/notes.txt": b""}, r"holds no images \(passed over: .txt \(1\)\); it must hold one sub-folder"),
        (
            {"a/1.jpg": b"x", "a/b/1.jpg": b"y"},
            "holds 1 images, such as '1.jpg', and the identity folder 'a/b'",
        ),
    ],
)
def test_a_folder_of_another_shape_is_refused(make_folder, files: dict[str, bytes], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        FolderReader(make_folder(files))


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere' is not a folder; give one with a sub-folder of images"):
        FolderReader(tmp_path / "nowhere")


@pytest.mark.parametrize("link", ["a/stolen.jpg", "stolen"])
def test_links_are_refused_because_they_may_lead_outside(make_folder, tmp_path, link: str):
    root = make_folder({"a/1.jpg": b"x"})
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    os.symlink(tmp_path / "secret.jpg" if link.endswith("jpg") else tmp_path, root / link)
    with pytest.raises(ValueError, match=rf"{link}' is a link; images must lie inside"):
        FolderReader(root)


def test_an_image_that_went_away_is_a_bad_record_not_the_end(make_folder):
    root = make_folder()
    reader = FolderReader(root)
    (root / "bob" / "1.jpg").unlink()
    with pytest.raises(BadRecordError, match=r"cannot read '.*bob/1\.jpg': No such file"):
        reader[3]
    assert reader[4][1] == 1


def test_an_index_beyond_the_last_image_is_refused(make_folder):
    reader = FolderReader(make_folder())
    with pytest.raises(IndexError):
        reader[6]


def test_read_file_gives_the_bytes_of_a_file(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"abc")
    assert read_file(tmp_path / "a.jpg") == b"abc"
