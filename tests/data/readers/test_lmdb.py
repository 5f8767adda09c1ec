"""LMDB databases of images, as F2C packs them."""

import multiprocessing
import os
import random
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from facescale.data import open_reader
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.datum import read_datum, write_datum
from facescale.data.readers.lmdb_file import LmdbFile
from facescale.data.readers.lmdb_set import LmdbReader
from facescale.prepare.convert_data import convert_data

lmdb = pytest.importorskip("lmdb")
JPEG = b"\xff\xd8\xff picture"


@pytest.fixture
def packed(make_folder, tmp_path) -> Path:
    return convert_data(open_reader(make_folder()), tmp_path / "db", form="lmdb").folder


def test_a_datum_is_what_protobuf_makes_of_it():
    descriptor = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    file = descriptor.FileDescriptorProto(name="datum.proto", syntax="proto2")
    message = file.message_type.add(name="Datum")
    for number, name, kind in ((1, "data", 12), (2, "label", 5), (3, "score", 2), (9, "time", 1)):
        message.field.add(name=name, number=number, type=kind, label=1)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    datum = message_factory.GetMessageClass(pool.FindMessageTypeByName("Datum"))
    for length in (1, 127, 128, 16384, 70000):
        image = bytes(range(256)) * (length // 256 + 1)
        image = image[:length]
        assert write_datum(image) == datum(data=image).SerializeToString()
        other = datum(data=image, label=-5, score=0.5, time=1.5).SerializeToString()
        assert read_datum(other) == image


def test_a_datum_of_caffe_and_a_bare_picture_are_read_too():
    caffe = b"\x08\x03\x10\x70\x18\x70" + b"\x22\x0b" + JPEG[:11] + b"\x28\x07\x38\x01"
    assert read_datum(caffe) == JPEG[:11]
    assert read_datum(JPEG) == JPEG


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (b"\x0a\x05ab", "ends within a field of its Datum"),
        (b"\x0a\x00", "a Datum without an image"),
        (b"", "a Datum without an image"),
        (b"\x0b", r"neither an image nor a Datum \(wire type 3\)"),
        (b"\x0a" + b"\xff" * 12, "a number of its Datum that does not end"),
    ],
)
def test_a_value_that_is_neither_is_a_bad_record(value: bytes, sentence: str):
    with pytest.raises(BadRecordError, match=sentence):
        read_datum(value)


def test_keys_and_list_are_those_of_f2c(packed):
    assert (packed / "train_kv.txt").read_text().splitlines()[:3] == [
        "train_0_0 0",
        "train_0_1 0",
        "train_1_0 1",
    ]
    image = open_reader(packed)[2][0]
    with lmdb.open(str(packed), readonly=True, lock=False) as database, database.begin() as transaction:
        assert transaction.get(b"train_1_0") == write_datum(image)
    assert open_reader(packed).key(2) == "train_1_0"
    assert not (packed / "lock.mdb").exists()


def test_a_database_that_outgrows_its_map_is_whole(make_reader, tmp_path, monkeypatch):
    monkeypatch.setattr("facescale.data.writers.lmdb._FIRST_SIZE", 1 << 15)
    source = make_reader([0] * 80, 48)
    reader = open_reader(convert_data(source, tmp_path / "db", form="lmdb").folder)
    assert [reader[i][0] for i in range(80)] == source.images


def test_a_list_may_lie_elsewhere_and_leave_images_out(packed, tmp_path):
    (tmp_path / "some list.txt").write_text("train_1_2 7\ntrain_0_0 3\n")
    for path in (packed, packed / "data.mdb"):
        reader = open_reader(f"lmdb:{path}?keys={tmp_path}/some list.txt")
        assert (list(reader.names), reader.ids.tolist()) == (["3", "7"], [1, 0])
        assert reader[0][0] == open_reader(packed)[4][0]


def _read_all(reader: LmdbReader) -> list[bytes]:
    return [reader[i][0] for i in range(len(reader))]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_threads_and_processes_read_alike(packed, make_folder, start: str):
    reader = open_reader(packed)
    expected = _read_all(open_reader(make_folder()))
    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(_read_all, [reader] * 40))
    with multiprocessing.get_context(start).Pool(2) as processes:
        assert processes.map(_read_all, [reader] * 4) == [expected] * 4
    assert _read_all(reader) == expected


def test_a_missing_key_is_a_bad_record(packed):
    (packed / "train_kv.txt").write_text("nobody 0\n")
    reader = open_reader(packed)
    with pytest.raises(BadRecordError, match="has no key 'nobody'"):
        reader[0]


def test_what_is_no_database_is_refused(packed, tmp_path):
    data = (packed / "data.mdb").read_bytes()
    (packed / "data.mdb").write_bytes(data[:-4096])
    with pytest.raises(ValueError, match=r"has [\d,]+ bytes, and its pages take [\d,]+; it is truncated"):
        open_reader(packed)
    (packed / "data.mdb").write_bytes(b"x" * 9000)
    with pytest.raises(ValueError, match="is not an LMDB database; give its folder"):
        open_reader(packed)
    (packed / "train_kv.txt").unlink()
    with pytest.raises(ValueError, match=r"has 0 lists of keys \(\*_kv.txt\); name the one with lines"):
        open_reader(packed)
    with pytest.raises(ValueError, match="'/no/db' does not exist; give the folder of an LMDB database"):
        open_reader("lmdb:/no/db")
    (packed / "data.mdb").unlink()
    with pytest.raises(ValueError, match=r"holds no LMDB database \(data\.mdb\); give the folder of one"):
        open_reader(f"lmdb:{packed}")
    with pytest.raises(ValueError, match=r"has no option 'kyes' \(did you mean 'keys'\?\)"):
        open_reader(f"lmdb:{packed}?kyes=x")


def test_writing_alone_needs_the_package(packed, make_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    moved = packed.rename(packed.with_name("moved"))
    assert _read_all(open_reader(moved)) == _read_all(open_reader(make_folder()))
    with pytest.raises(ValueError, match=r"writing LMDB needs the package lmdb; .* 'facescale\[lmdb\]'"):
        convert_data(open_reader(make_folder()), tmp_path / "new", form="lmdb")
    assert sorted(os.listdir(tmp_path)) == ["faces", "moved"]


def test_values_are_those_that_the_library_finds(tmp_path):
    rng = random.Random(0)
    values = {
        b"%d" % rng.randrange(10**9): rng.randbytes(rng.choice((0, 5, 900, 5000, 40_000)))
        for _ in range(3000)
    }
    with lmdb.open(str(tmp_path / "db"), map_size=1 << 28) as database:
        for part in (0, 1):  # several transactions, and pages that were freed and used again
            with database.begin(write=True) as transaction:
                for number, (key, value) in enumerate(values.items()):
                    if number % 2 == part:
                        transaction.put(key, value)
        with database.begin(write=True) as transaction:
            for key in list(values)[::7]:
                transaction.delete(key)
                del values[key]
    found = LmdbFile(tmp_path / "db")
    assert len(found) == len(values)
    assert all(found[key] == value for key, value in values.items())
    for key in (b"", b"x", b"\xff" * 400):
        with pytest.raises(BadRecordError, match="has no key"):
            found[key]
    with lmdb.open(str(tmp_path / "empty")):
        pass
    empty = LmdbFile(tmp_path / "empty")
    assert len(empty) == 0
    with pytest.raises(BadRecordError, match="has no key 'x'"):
        empty[b"x"]


def test_other_kinds_of_databases_are_refused(tmp_path):
    with lmdb.open(str(tmp_path / "db")):
        path, data = tmp_path / "db" / "data.mdb", (tmp_path / "db" / "data.mdb").read_bytes()
    at = 16 + 24 + 48 + 4  # the flags of the main tree, in both pages of meta data
    for start in (at, 4096 + at):
        data = data[:start] + b"\x04\x00" + data[start + 2 :]
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"orders its keys in a way of its own \(flags 4\), or has several values"
    ):
        LmdbFile(path)


def test_page_numbers_that_lead_nowhere_are_bad_records(packed):
    path = packed / "data.mdb"
    whole = path.read_bytes()
    reader = open_reader(packed)
    key = reader.key(0).encode()
    tree = LmdbFile(path)._tree
    for root in (2**40, 0):  # beyond the end; a page of meta data
        damaged = LmdbFile(path)
        damaged._tree = tree._replace(root=root)
        with pytest.raises(
            BadRecordError, match=r"cannot read .*: page \d+ (lies beyond its end|is damaged)"
        ):
            damaged[key]
    page = tree.root * 4096
    for place, value, sentence in (
        (page + 10, b"\x08", "is damaged"),  # neither branch nor leaf
        (page, b"\x63", "is damaged"),  # another page
    ):
        path.write_bytes(whole[:place] + value + whole[place + 1 :])
        with pytest.raises(BadRecordError, match=sentence):
            LmdbFile(path)[key]
