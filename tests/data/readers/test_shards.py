"""Tar shards as webdataset names them, read at any place."""

import io
import pickle
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from facescale.data import open_reader
from facescale.data.readers import saved_index
from facescale.data.readers import shard_index as indexing
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.saved_index import load_index, save_index
from facescale.data.readers.tar_headers import tar_members
from facescale.data.writers import shards as writing
from facescale.prepare.convert_data import convert_data

JPEG = b"\xff\xd8\xff"


def write_tar(path: Path, files: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def packed(make_reader, tmp_path, monkeypatch) -> Path:
    """Ten images of three people in shards of four."""
    monkeypatch.setattr(writing, "_IMAGES", 4)
    return convert_data(make_reader([0, 0, 1, 1, 1, 2, 2, 0, 1, 2]), tmp_path / "set", form="shards").folder


def test_images_are_cut_into_shards_and_come_back_in_order(packed, make_reader):
    assert sorted(path.name for path in packed.glob("*.tar")) == [f"train-00000{n}.tar" for n in range(3)]
    reader, source = open_reader(packed), make_reader([0, 0, 1, 1, 1, 2, 2, 0, 1, 2])
    assert reader.num_shards == 3
    assert [reader[i][0] for i in range(10)] == source.images
    assert reader.ids.tolist() == source.ids.tolist()
    assert reader.key(5) == "train-000001.tar#000000005"


def test_webdataset_reads_the_same(packed):
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(packed.glob("*.tar"))]
    rows = list(webdataset.WebDataset(urls, shardshuffle=False))
    reader = open_reader(packed)
    assert [(row["jpg"], int(row["cls"])) for row in rows] == [reader[i] for i in range(10)]


def test_what_webdataset_writes_is_read(tmp_path, make_picture):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.ShardWriter(f"{tmp_path}/s-%03d.tar", maxcount=3, verbose=0) as sink:
        for n in range(7):
            sink.write({"__key__": f"a/b{n}", "jpg": JPEG + bytes([n]), "json": {"label": n % 2}})
    reader = open_reader(f"shards:{tmp_path}/s-{{000..002}}.tar")
    assert [reader[i] for i in range(7)] == [(JPEG + bytes([n]), n % 2) for n in range(7)]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_headers_are_read_as_tarfile_reads_them(tmp_path, form: int):
    long = "x" * 60 + "/" + "y" * 90
    names = ["a.jpg", "dir/b.jpg", f"{long}.jpg"] + (
        [] if form == tarfile.USTAR_FORMAT else ["ü" * 120 + ".jpg"]
    )
    files = {name: bytes([n]) * (n * 511) for n, name in enumerate(names)}
    path = write_tar(tmp_path / "t.tar", files, form)
    data = path.read_bytes()
    found = list(tar_members(lambda at, size: data[at : at + size], len(data), str(path)))
    with tarfile.open(path) as tar:
        assert found == [(one.name, one.offset_data, one.size) for one in tar.getmembers()]


def test_a_tar_of_folders_has_an_identity_for_each(tmp_path):
    files = {f"{who}/{n}.JPG": JPEG + bytes([n]) for who in ("bob", "ann") for n in range(2)}
    reader = open_reader(write_tar(tmp_path / "people.tar", files))
    assert (list(reader.names), reader.ids.tolist()) == (["ann", "bob"], [1, 1, 0, 0])
    assert reader[2] == (JPEG + b"\0", 0)


def test_the_index_is_built_once_and_again_when_a_shard_changes(packed, monkeypatch):
    first = open_reader(packed)
    built = indexing.build_index
    monkeypatch.setattr(indexing, "build_index", lambda files: pytest.fail("built again"))
    again = open_reader(packed)
    assert [again[i] for i in range(10)] == [first[i] for i in range(10)]
    assert again.key(9) == first.key(9)
    monkeypatch.setattr(indexing, "build_index", built)
    write_tar(packed / "train-000002.tar", {"z.jpg": JPEG, "z.cls": b"9"})
    assert len(open_reader(packed)) == 9


def test_an_index_that_points_elsewhere_is_not_believed(packed):
    files = open_reader(packed).files
    expected = [open_reader(packed)[i] for i in range(10)]
    (kept,) = packed.glob(".facescale-*.index")
    state = indexing.state_of_files(files)
    columns = {name: np.array(column) for name, column in load_index([kept], state, {}).items()}
    for name, wrong in (
        ("offset", -1),
        ("size", 1 << 30),
        ("shard", 3),
        ("ends", -1),
        ("id", 3),
        ("id", None),
    ):
        column = columns[name]
        changed = column[:2] if wrong is None else np.where(np.arange(len(column)) == 4, wrong, column)
        save_index([kept], state, {**columns, name: changed.astype(column.dtype)})
        assert indexing._loaded([kept], state, files) is None
        assert [open_reader(packed)[i] for i in range(10)] == expected
    assert indexing._loaded([kept], state, files) is not None


def test_the_index_goes_to_the_cache_where_the_set_cannot_be_written(packed, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for old in packed.glob(".facescale-*.index"):
        old.unlink()
    monkeypatch.setattr(
        saved_index.tempfile,
        "mkstemp",
        lambda dir, **rest: (_ for _ in ()).throw(OSError()) if dir == packed else mkstemp(dir=dir, **rest),
    )
    open_reader(packed)
    assert len(list((tmp_path / "cache" / "facescale").iterdir())) == 1
    assert not list(packed.glob(".facescale-*.index"))


mkstemp = saved_index.tempfile.mkstemp


def test_a_url_is_read_like_a_disk(packed, make_reader, tmp_path, monkeypatch):
    fsspec = pytest.importorskip("fsspec")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    for path in packed.glob("*.tar"):
        memory.pipe(f"/faces/{path.name}", path.read_bytes())
    reader = open_reader("shards:memory://faces/train-{000000..000002}.tar")
    assert [reader[i][0] for i in range(10)] == make_reader([0] * 10).images
    with pytest.raises(ValueError, match=r"cannot read '.*none.tar': .*check address and access"):
        open_reader("shards:memory://faces/none.tar")
    memory.pipe("/faces/train-000002.tar", b"")
    with pytest.raises(BadRecordError, match=r"'memory://faces/train-000002.tar' ends before byte"):
        reader[9]
    memory.rm("/faces", recursive=True)
    with pytest.raises(BadRecordError, match=r"cannot read 'memory://faces/train-000001.tar'"):
        reader[5]


def test_many_threads_and_many_shards(packed, monkeypatch):
    monkeypatch.setattr("facescale.data.readers.shard_files._MOST_OPEN", 1)
    reader = open_reader(packed)
    expected = [reader[i] for i in range(10)]
    with ThreadPoolExecutor(8) as pool:
        assert all(list(pool.map(reader.__getitem__, range(10))) == expected for _ in range(20))


def test_a_file_that_shrinks_or_vanishes_is_a_bad_record(packed, tmp_path):
    reader = open_reader(packed)
    (packed / "train-000002.tar").write_bytes(b"")
    with pytest.raises(BadRecordError, match=r"train-000002.tar' ends before byte"):
        reader[9]
    reader = open_reader(write_tar(tmp_path / "one.tar", {"a.jpg": JPEG, "a.cls": b"1"}))
    (tmp_path / "one.tar").unlink()
    reader = pickle.loads(pickle.dumps(reader))
    with pytest.raises(BadRecordError, match=r"cannot read '.*one.tar': No such file"):
        reader[0]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda data: data[:700], "it is truncated, copy it again"),
        (lambda data: data[:300], "ends within its last file, at byte 300"),
        (lambda data: b"\x1f\x8b" + data[2:], "is compressed, so no image is found"),
        (
            lambda data: b"no tar at all" + data[13:],
            "is not a tar archive; copy it again",
        ),
        (lambda data: data[:1025] + b"?" + data[1026:], "is damaged at byte 1,024; copy it again"),
        (lambda data: bytes(2048), r"holds no image \(jpg, jpeg, png"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path, change, sentence: str):
    path = write_tar(tmp_path / "t.tar", {"a.jpg": JPEG * 50, "a.cls": b"1"})
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ValueError, match=sentence):
        open_reader(path)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"a.jpg": JPEG, "a.cls": b"one"}, "'a.cls' of '.*' has the label 'one'; a label is a whole number"),
        ({"a.jpg": JPEG, "a.json": b"{"}, "is not JSON; write the label as a number into a .cls file"),
        ({"a.jpg": JPEG, "a.cls": b"1", "b.jpg": JPEG}, "1 of 2 images .* have no label, such as 'b'"),
        ({"a.jpg": JPEG, "b.jpg": JPEG}, "have neither labels nor folders, such as 'a'"),
    ],
)
def test_labels_that_are_missing_or_wrong_are_named(tmp_path, files: dict[str, bytes], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        open_reader(write_tar(tmp_path / "t.tar", files))


def test_names_of_shards_that_cannot_be_are_refused(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    for spec, sentence in (
        (f"shards:{tmp_path}/empty", "holds no .tar file; give the folder of the shards"),
        (f"shards:{tmp_path}/t-{{5..1}}.tar", r"has the range \{5..1\}; write \{first..last\}"),
        (f"shards:{tmp_path}/no.tar", "cannot read the shard '.*no.tar': No such file or directory"),
    ):
        with pytest.raises(ValueError, match=sentence):
            open_reader(spec)
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ValueError, match=r"needs fsspec; install it with: pip install 'facescale\[remote\]'"):
        open_reader("shards:s3://bucket/a.tar")
