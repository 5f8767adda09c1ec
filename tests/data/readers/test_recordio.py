"""RecordIO: every layout that is met in the wild, and every way to be broken."""

import pickle
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from facescale.data.loading.decode import decode
from facescale.data.readers import recordio_index, recordio_labels, recordio_text, recordio_words
from facescale.data.readers.base import BadRecordError, Reader
from facescale.data.readers.recordio import MAGIC, RecordReader
from facescale.data.writers import recordio as recordio_writer
from facescale.data.writers.recordio import record_file, write_records

MAGIC_BYTES = struct.pack("<I", MAGIC)
LAYOUTS = ["insightface", "im2rec"]


@pytest.fixture(params=LAYOUTS)
def layout(request) -> str:
    return request.param


@pytest.fixture
def written(make_reader, tmp_path, layout: str) -> tuple[Path, list[bytes]]:
    """A set of 4 identities that do not come in order; its images, sorted as the file has them."""
    reader = make_reader([2, 0, 1, 0, 3, 2])
    write_records(reader, tmp_path, layout=layout)
    order = np.argsort(reader.ids, kind="stable") if layout == "insightface" else range(6)
    return tmp_path / "train.rec", [reader.images[i] for i in order]


@pytest.mark.parametrize("indexed", [True, False])
def test_what_is_written_is_read_again(written, layout: str, indexed: bool):
    path, images = written
    if not indexed:
        path.with_suffix(".idx").unlink()
    reader = RecordReader(path)
    assert isinstance(reader, Reader)
    assert reader.ids.tolist() == ([0, 0, 1, 2, 2, 3] if layout == "insightface" else [2, 0, 1, 0, 3, 2])
    assert reader.ids.dtype == np.int64
    assert reader.num_ids == 4
    assert [reader[i] for i in range(6)] == list(zip(images, reader.ids, strict=True))
    assert len({reader.key(i) for i in range(6)}) == 6


def test_the_property_file_tells_identities_and_sides(make_reader, tmp_path):
    write_records(make_reader([0, 1], size=20), tmp_path)
    assert (tmp_path / "property").read_text() == "2,20,20"


def test_raw_pixels_are_stored_as_jpeg(make_reader, make_picture, tmp_path, layout: str):
    source = make_reader([0])
    source.images[0] = make_picture(3)
    write_records(source, tmp_path, layout=layout)
    image, _ = RecordReader(tmp_path / "train.rec")[0]
    assert np.abs(decode(image).astype(int) - make_picture(3)).mean() < 2


def test_an_unreadable_image_is_left_out_and_named(make_reader, tmp_path, layout: str):
    report = write_records(make_reader([0, 0, 1, 2], bad=frozenset({1, 2})), tmp_path, layout=layout)
    assert (report.num_images, report.num_ids) == (2, 3)
    assert report.bad == {"memory/1": "made to fail", "memory/2": "made to fail"}
    reader = RecordReader(tmp_path / "train.rec")
    assert reader.ids.tolist() == [0, 1]
    assert list(reader.names) == ["0", "2"]


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(
    "image",
    [
        b"\xff\xd8" + b"ab" + MAGIC_BYTES + b"tail",
        MAGIC_BYTES + b"after",
        b"1234" + MAGIC_BYTES,
        MAGIC_BYTES * 3 + b"x" + MAGIC_BYTES + b"y",
        b"123" + MAGIC_BYTES + b"not aligned",
    ],
)
def test_an_image_that_holds_the_magic_comes_back_whole(tmp_path, image: bytes, indexed: bool):
    with record_file(tmp_path / "a.rec") as records:
        for key in range(3):
            records.append(key, (key,), b"%d" % key + image[1:] if key == 1 else image)
    if not indexed:
        (tmp_path / "a.idx").unlink()
    reader = RecordReader(tmp_path / "a.rec")
    assert [reader[i][0] for i in range(3)] == [image, b"1" + image[1:], image]
    frames = (tmp_path / "a.rec").read_bytes()
    aligned = sum(frames[i : i + 4] == MAGIC_BYTES for i in range(0, len(frames), 4))
    kinds = [
        struct.unpack_from("<I", frames, i + 4)[0] >> 29
        for i in range(0, len(frames), 4)
        if frames[i : i + 4] == MAGIC_BYTES
    ]
    assert set(kinds) <= {0, 1, 2, 3}  # no magic is left inside of a payload
    assert aligned == len(kinds)


def test_an_image_larger_than_one_read_comes_back_whole(tmp_path):
    image = np.random.default_rng(0).bytes(100_001)
    with record_file(tmp_path / "a.rec") as records:
        records.append(0, (0,), image)
    assert RecordReader(tmp_path / "a.rec")[0] == (image, 0)


def test_several_labels_count_by_their_first(tmp_path):
    with record_file(tmp_path / "a.rec") as records:
        for key in range(3):
            records.append(key, (key, 0.5, 7.25), b"image%d" % key)
    reader = RecordReader(tmp_path / "a.rec")
    assert reader.ids.tolist() == [0, 1, 2]
    assert reader[1][0] == b"image1"


def test_labels_with_gaps_are_numbered_and_their_originals_kept(tmp_path):
    with record_file(tmp_path / "a.rec") as records:
        for key, label in enumerate((40, 7, 40, 1_000_003)):
            records.append(key, (label,), b"image")
    reader = RecordReader(tmp_path / "a.rec")
    assert reader.ids.tolist() == [1, 0, 1, 2]
    assert list(reader.names) == ["7", "40", "1000003"]


def insightface_set(
    path: Path, labels: list[int], ranges: list[tuple[int, int]], counts: tuple[int, int]
) -> Path:
    with record_file(path) as records:
        records.append(0, counts)
        for key, label in enumerate(labels, start=1):
            records.append(key, (label, 0), b"image%d" % key)
        for key, (start, end) in enumerate(ranges, start=len(labels) + 1):
            records.append(key, (start, end))
    return path


def test_identities_keep_the_labels_of_their_images_whatever_their_order(tmp_path):
    reader = RecordReader(insightface_set(tmp_path / "a.rec", [5, 5, 2], [(1, 3), (3, 4)], (4, 6)))
    assert list(reader.names) == ["2", "5"]
    assert reader.ids.tolist() == [1, 1, 0]


@pytest.mark.parametrize("ranges", [[(1, 2), (3, 4)], [(2, 4), (1, 2)], [(1, 3), (3, 5)], [(1, 5), (5, 4)]])
def test_ranges_that_do_not_tile_the_images_give_way_to_their_own_labels(tmp_path, ranges):
    reader = RecordReader(insightface_set(tmp_path / "a.rec", [0, 1, 1], ranges, (4, 6)))
    assert reader.ids.tolist() == [0, 1, 1]


def test_a_set_without_identity_records_takes_the_images_own_labels(tmp_path):
    reader = RecordReader(insightface_set(tmp_path / "a.rec", [0, 1, 1], [], (4, 4)))
    assert reader.ids.tolist() == [0, 1, 1]


def test_identities_without_images_are_not_there(tmp_path):
    reader = RecordReader(insightface_set(tmp_path / "a.rec", [0, 2, 2], [(1, 2), (2, 2), (2, 4)], (4, 7)))
    assert reader.ids.tolist() == [0, 1, 1]
    assert list(reader.names) == ["0", "2"]


@pytest.mark.parametrize("kept", [slice(0, 3), slice(-1), slice(None, None, 2), slice(-3, None)])
def test_an_index_of_part_of_the_file_is_refused(written, kept: slice):
    path, _ = written
    index = path.with_suffix(".idx")
    lines = sorted(index.read_text().splitlines(), key=lambda line: int(line.split("\t")[1]))
    index.write_text("\n".join(lines[kept]))
    sentence = r"records from byte .* incomplete|leaves out what follows|tells of 6 images"
    with pytest.raises(ValueError, match=sentence):
        RecordReader(path)


def test_two_files_in_one_are_refused(written):
    path, _ = written
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(
        ValueError, match=r"names \d+ records from byte 0 to [\d,]+ of a record file of [\d,]+ bytes"
    ):
        RecordReader(path)


def test_a_reader_survives_pickling_and_is_shared_by_threads(written):
    path, images = written
    reader = pickle.loads(pickle.dumps(RecordReader(path)))
    with ThreadPoolExecutor(4) as pool:
        assert [image for image, _ in pool.map(reader.__getitem__, list(range(6)) * 20)] == images * 20


@pytest.mark.parametrize("cut", [4, 1000])
def test_a_truncated_file_is_refused_at_open(written, cut: int):
    path, _ = written
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(ValueError, match=r"is truncated|tells of 6 images|that file is truncated"):
        RecordReader(path)
    path.with_suffix(".idx").unlink()
    with pytest.raises(
        ValueError, match=r"has no complete record at byte [\d,]+ of [\d,]+; it is truncated|tells of 6"
    ):
        RecordReader(path)


def test_ranges_beyond_what_float32_counts_exactly_are_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(recordio_labels, "EXACT_FLOAT32", 4)  # as if it had 17 million images
    path = insightface_set(tmp_path / "a.rec", [0, 0, 1, 1, 2], [(1, 4), (4, 5), (5, 6)], (6, 9))
    assert RecordReader(path).ids.tolist() == [0, 0, 1, 1, 2]


def test_an_image_that_the_packer_left_out_is_just_not_there(tmp_path):
    with record_file(tmp_path / "a.rec") as records:
        records.append(0, (201, 202))
        for key in range(1, 201):
            if key != 77:
                records.append(key, (key % 3, 0), b"image%d" % key)
        records.append(201, (1, 201))
    reader = RecordReader(tmp_path / "a.rec")
    assert reader.ids.tolist() == [key % 3 for key in range(1, 201) if key != 77]
    assert reader[76][0] == b"image78"
    assert reader.key(76) == "a.rec#78"


def test_a_set_that_lost_records_is_told_by_its_count(tmp_path):
    path = insightface_set(tmp_path / "a.rec", [0, 1], [(1, 2)], (3, 5))
    with pytest.raises(
        ValueError, match=r"record 0 of .* tells of 2 images and 2 identities, but 2 and 1 are there"
    ):
        RecordReader(path)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"train.rec' does not exist; give a .rec file or the folder"):
        RecordReader(tmp_path / "train.rec")


@pytest.mark.parametrize("data", [b"", b"abc", b"\xff\xd8\xff\xe0" * 30])
def test_another_kind_of_file_is_refused(tmp_path, data: bytes):
    (tmp_path / "a.rec").write_bytes(data)
    with pytest.raises(ValueError, match=r"which no RecordIO file is|it is truncated or not a RecordIO file"):
        RecordReader(tmp_path / "a.rec")


@pytest.mark.parametrize("label", [-1.0, 0.5, float("nan"), float("inf"), float(2**24)])
@pytest.mark.parametrize("several", [False, True])
def test_a_label_that_is_no_identity_is_refused(tmp_path, label: float, several: bool):
    with record_file(tmp_path / "a.rec") as records:
        records.append(0, (0,), b"image")
        records.append(1, (label, 0) if several else (label,), b"image")
    with pytest.raises(
        ValueError, match=r"record 1 of .* has the label .*; a label is a whole number from 0 to 16,777,215"
    ):
        RecordReader(tmp_path / "a.rec")


@pytest.mark.parametrize("text", ["", "0\t0\n1", "0\tzero\n", "a b c d", "\xe9"])
def test_an_index_that_is_none_is_refused(written, text: str):
    path, _ = written
    path.with_suffix(".idx").write_text(text)
    with pytest.raises(
        ValueError, match=r"train.idx' is not an index \(lines of key and offset\); remove it"
    ):
        RecordReader(path)


@pytest.mark.parametrize("text", ["0\t0\n0\t40\n", "0\t-4\n", "0\t2\n"])
def test_an_index_that_cannot_be_right_is_refused(written, text: str):
    path, _ = written
    path.with_suffix(".idx").write_text(text)
    with pytest.raises(
        ValueError, match="has repeated keys or impossible offsets; remove it to have it rebuilt"
    ):
        RecordReader(path)


def test_the_index_of_a_larger_file_is_refused(written):
    path, _ = written
    path.with_suffix(".idx").write_text("0\t0\n1\t1000000\n")
    with pytest.raises(
        ValueError, match=r"points to byte 1,000,000 of a record file of [\d,]+ bytes; that file is"
    ):
        RecordReader(path)


def test_the_index_of_another_file_is_refused(written):
    path, _ = written
    path.with_suffix(".idx").write_text("0\t4\n1\t0\n")
    with pytest.raises(
        ValueError, match=r"names 2 records from byte 0 to \d+ .* incomplete or of another file"
    ):
        RecordReader(path)


def test_an_offset_without_a_record_is_named(make_reader, tmp_path):
    write_records(make_reader([0, 1, 2]), tmp_path, layout="im2rec")
    index = tmp_path / "train.idx"
    lines = sorted(index.read_text().splitlines(), key=lambda line: int(line.split("\t")[1]))
    key, offset = lines[1].split("\t")
    index.write_text(index.read_text().replace(lines[1], f"{key}\t{int(offset) + 4}"))
    with pytest.raises(ValueError, match=rf"no record {key} at byte .*; the index belongs to another"):
        RecordReader(tmp_path / "train.rec")


def damaged(path: Path, at: int, data: bytes) -> RecordReader:
    """A reader of a file whose bytes change after it was opened."""
    reader = RecordReader(path)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    return reader


def test_damage_is_named_by_its_byte(tmp_path):
    path = tmp_path / "a.rec"
    with record_file(path) as records:
        for key in range(3):
            records.append(key, (0,), b"image" * 10)
    size = path.stat().st_size // 3
    reader = RecordReader(path)
    with path.open("r+b") as file:
        file.seek(size)
        file.write(b"oops")
        file.seek(2 * size + 4)
        file.write(struct.pack("<I", 10_000))
    assert reader[0][0] == b"image" * 10
    with pytest.raises(BadRecordError, match=f"no record at byte {size}"):
        reader[1]
    with pytest.raises(BadRecordError, match=f"record at byte {2 * size} goes beyond the end of the file"):
        reader[2]


def test_a_record_that_continues_another_is_no_start(tmp_path):
    with record_file(tmp_path / "a.rec") as records:
        records.append(0, (0,), b"1234" + MAGIC_BYTES + b"5678")
        records.append(1, (0,), b"image")
    with pytest.raises(BadRecordError, match="no record at byte 0"):
        damaged(tmp_path / "a.rec", 4, struct.pack("<I", 3 << 29 | 28))[0]


def test_a_record_without_image_or_header_is_bad(tmp_path):
    path = tmp_path / "a.rec"
    with record_file(path) as records:
        records.append(0, (0,), b"image")
        records.append(1, (0,), b"")
    reader = RecordReader(path)
    with pytest.raises(BadRecordError, match="record has no image"):
        reader[1]
    with pytest.raises(BadRecordError, match="record is 8 bytes long, too short for a header"):
        damaged(path, 4, struct.pack("<I", 8))[0]


def test_a_disk_that_fails_makes_a_bad_record(written, monkeypatch):
    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    reader = RecordReader(written[0])
    monkeypatch.setattr("os.pread", fail)
    with pytest.raises(BadRecordError, match=r"cannot read byte \d+: Input/output error"):
        reader[0]


def test_a_layout_that_does_not_exist_is_refused(make_reader, tmp_path):
    with pytest.raises(ValueError, match="unknown layout 'lmdb'; choose one of: insightface, im2rec"):
        write_records(make_reader([0]), tmp_path, layout="lmdb")


def test_more_identities_than_float32_can_tell_apart_are_refused(make_reader, tmp_path):
    reader = make_reader([0])
    reader.num_ids = 2**24 + 1
    with pytest.raises(
        ValueError, match=r"16,777,217 identities do not fit RecordIO, .* exact up to 16,777,216"
    ):
        write_records(reader, tmp_path)


def test_an_image_too_large_for_a_record_is_refused_and_nothing_left_behind(
    make_reader, tmp_path, monkeypatch
):
    monkeypatch.setattr(recordio_writer, "MAX_LENGTH", 100)
    with pytest.raises(ValueError, match="a record holds up to 100 bytes, this one"):
        write_records(make_reader([0]), tmp_path)
    assert list(tmp_path.iterdir()) == []


def rows_of(keys):
    """An index and record file of many small records, keyed as given."""
    words = np.zeros((len(keys), 10), "<u4")
    words[:, 0], words[:, 1], words[:, 4] = MAGIC, 29, keys
    words[:, 3] = (np.arange(len(keys)) % 7).astype("<f4").view("<u4")
    index = "".join(f"{key}\t{40 * place}\n" for place, key in enumerate(keys))
    return words.tobytes(), index


@pytest.mark.parametrize("indexed", [True, False])
def test_many_records_are_opened_without_arrays_beside_offsets_and_identities(
    tmp_path, monkeypatch, indexed: bool
):
    monkeypatch.setattr(recordio_words, "BLOCK", 1000)
    monkeypatch.setattr(recordio_text, "_BLOCK", 4096)
    monkeypatch.setattr(recordio_index, "_SCANNED", 10_000)
    count = 20_000
    data, index = rows_of(np.arange(count))
    (tmp_path / "train.rec").write_bytes(data)
    if indexed:
        (tmp_path / "train.idx").write_text(index)
    RecordReader(tmp_path / "train.rec")  # what is made once, at the first call
    tracemalloc.start()
    reader = RecordReader(tmp_path / "train.rec")
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reader.ids.tolist() == [i % 7 for i in range(count)]
    assert reader._keys == range(count)  # takes no memory
    assert kept < 2 * 8 * count + 20_000
    assert peak < 3.2 * 8 * count + 300_000  # and a block


@pytest.mark.parametrize(
    "keys", [[3, 1, 2, 0], [5, 6, 7, 8], [0, 1, 2, 9], [10**14, 10**14 + 1, 5, 1], [0, 9, 10, 11]]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
def test_indices_of_any_order_spelling_and_width_are_read(tmp_path, keys, end: str):
    data, _ = rows_of(np.array(keys, np.int64) % 2**32)
    (tmp_path / "train.rec").write_bytes(data)
    lines = (f"{key}\t{40 * place}" for place, key in enumerate(keys))
    (tmp_path / "train.idx").write_text(end.join(lines))
    reader = RecordReader(tmp_path / "train.rec")
    assert [reader.key(i) for i in range(4)] == [f"train.rec#{key}" for key in sorted(keys)]
    assert reader.ids.tolist() == [keys.index(key) for key in sorted(keys)]


@pytest.mark.parametrize("offset", [2**62, 2**63 - 4, 2**63, 2**64, -4])
def test_an_offset_beyond_any_file_is_refused(written, offset: int):
    index = written[0].with_suffix(".idx")
    index.write_text(f"0\t0\n1\t{offset}\n")
    with pytest.raises(ValueError, match=r"remove it to have it rebuilt|points to byte|is not an index"):
        RecordReader(index.with_suffix(".rec"))
