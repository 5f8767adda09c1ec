"""What counts as a picture."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from facescale.data import open_reader
from facescale.data.loading.decode import encode_jpeg
from facescale.data.readers.base import passed_over
from facescale.data.readers.combine import SubsetReader
from facescale.data.readers.folder import FolderReader
from facescale.data.readers.loose import LooseImages
from facescale.data.readers.pictures import is_picture, kind_of, listed, picture_suffix

JPEG = encode_jpeg(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("first_bytes", "suffix"),
    [
        (JPEG[:12], ".jpg"),
        (b"\x89PNG\r\n\x1a\n....", ".png"),
        (b"RIFF....WEBP", ".webp"),
        (b"RIFF....WAVE", ""),
        (b"BM1234\0\0\0\0..", ".bmp"),
        (b"BMI of Ann..", ""),
        (b"", ""),
    ],
)
def test_first_bytes_tell_a_picture(first_bytes: bytes, suffix: str) -> None:
    assert picture_suffix(first_bytes) == suffix


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPEG", "a.jpe", "a.jfif", "a.heic", "a", "a.b.c", "Jürgen", "a.txt"]
)
def test_a_file_with_the_bytes_of_a_picture_is_one_whatever_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(JPEG)
    assert is_picture(tmp_path / name)


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert not is_picture(tmp_path / "pipe")
    assert not is_picture(tmp_path / "nothing")


def test_what_a_folder_passes_over_is_counted_by_kind(make_folder) -> None:  # type: ignore[no-untyped-def]
    files = {
        "ann/1": JPEG,
        "ann/2.heic": JPEG,
        "ann/3.heic": b"true heic",
        "ann/notes.TXT": b"",
        "ann/x": b"",
    }
    hidden = {
        "ann/.DS_Store": b"",
        "ann/@eaDir/1.jpg/t.jpg": JPEG,
        "__macosx/ann/._1.jpg": b"",
        ".git/x": b"",
    }
    reader = FolderReader(make_folder(files | hidden))
    assert [reader.key(i) for i in range(len(reader))] == ["ann/1", "ann/2.heic"]
    expected = {".heic": 1, ".txt": 1, "no suffix": 1, "hidden files": 1}
    folders = {"folder @eaDir": 1, "folder __macosx": 1, "folder .git": 1}
    assert reader.passed_over == expected | folders


def test_counts_travel_through_readers_of_readers(make_folder) -> None:  # type: ignore[no-untyped-def]
    first = make_folder({"a/1.jpg": JPEG, "a/2.jpg": JPEG, "a/x.tif": b""})
    second = make_folder({"b/1.jpg": JPEG, "b/x.tif": b"", "b/y.gif": b""}, name="more")
    reader = open_reader([first, second], min_images=2)
    assert isinstance(reader, SubsetReader)
    assert passed_over(reader) == {".tif": 2, ".gif": 1}
    assert passed_over(open_reader("synthetic:ids=2,images=1")) == Counter()


def test_loose_images_are_told_by_the_same_rule(tmp_path: Path) -> None:
    for name, data in {"b": JPEG, "a.JPG": JPEG, "notes.txt": b"", ".x": JPEG}.items():
        (tmp_path / name).write_bytes(data)
    reader = LooseImages(tmp_path)
    assert [reader.key(i) for i in range(len(reader))] == ["a.JPG", "b"]
    assert reader.passed_over == {".txt": 1, "hidden files": 1}


def test_counts_are_listed_the_most_frequent_first() -> None:
    assert listed(Counter({".tif": 2, "no suffix": 1234})) == "no suffix (1,234), .tif (2)"
    assert kind_of("a.HEIC") == ".heic"
