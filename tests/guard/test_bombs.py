"""Small files that ask for much: each is refused in a sentence, before the work is done."""

import io
import os
import pickle
import sqlite3
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from facescale.config import load_config
from facescale.data import open_reader
from facescale.data.images import IndexedImages
from facescale.data.loading.decode import decode, decode_into
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.folder import read_file
from facescale.evaluate.protocols.pair_bin import read_bin
from facescale.evaluate.protocols.pair_lists import read_csv, write_csv
from facescale.evaluate.protocols.pairs import Pairs
from facescale.gallery.gallery import Gallery
from facescale.guard.onnx_graph import check_onnx
from facescale.plan.check import read_config
from facescale.prepare.photos import PhotoError, open_photo
from facescale.prepare.scan import scan


def jpeg(side: int, scans: int = 0) -> bytes:
    """A grey progressive JPEG, its last scan repeated."""
    out = io.BytesIO()
    Image.new("L", (side, side), 128).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def test_a_jpeg_of_many_scans_is_refused() -> None:
    for data, text in (
        (jpeg(64, 1000), "JPEG has 1,0.. scans"),
        (jpeg(4000, 100), "scans of 16,000,000 pixels"),
    ):
        with pytest.raises(BadRecordError, match=text):
            decode(data)
        with pytest.raises(BadRecordError, match=r"scans|wanted"):
            decode_into(np.empty((64, 64, 3), np.uint8), data)
        with pytest.raises(PhotoError, match="more scans than are decoded"):
            open_photo(data)


def test_a_large_image_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    Image.new("RGB", (3000, 200)).save(out, "PNG")
    monkeypatch.setattr("facescale.data.loading.decode.decode", None)  # it would be called to decode
    for data in (out.getvalue(), jpeg(3000)):
        with pytest.raises(BadRecordError, match=r"image is 3000x\d+ pixels where 112x112 is wanted"):
            decode_into(np.empty((112, 112, 3), np.uint8), data)


def test_transparent_pixels_are_composed_strip_by_strip_as_at_once() -> None:
    rng = np.random.default_rng(0)
    layer = Image.fromarray(rng.integers(0, 256, (1100, 8, 4), np.uint8), "RGBA")
    out = io.BytesIO()
    layer.save(out, "PNG")
    under = Image.new("RGBA", layer.size, (0, 0, 0, 255))
    assert np.array_equal(
        decode(out.getvalue()), np.asarray(Image.alpha_composite(under, layer).convert("RGB"))
    )


def test_a_pipe_among_images_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "1.jpg")
    with pytest.raises(BadRecordError, match="it is a pipe, socket, device or folder"):
        read_file(tmp_path / "1.jpg")
    with (tmp_path / "2.jpg").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(BadRecordError, match="more than the 268,435,456 of the largest image"):
        read_file(tmp_path / "2.jpg")


def test_folders_within_folders_end_in_a_sentence(tmp_path: Path) -> None:
    deep = tmp_path / "/".join("d" * 100)
    deep.mkdir(parents=True)
    (deep / "1.jpg").write_bytes(jpeg(16))
    with pytest.raises(
        ValueError, match=r"has more than 64 folders within folders, such as 'd/d.*'; move the iden"
    ):
        open_reader(str(tmp_path))
    with pytest.raises(
        ValueError, match=r"has more than 64 folders within folders, such as 'd/d.*'; move the phot"
    ):
        scan(tmp_path)


IMAGES, LABELS = [b"\xff\xd8a", b"\xff\xd8b"] * 4, [True, False, True, False]


def test_one_array_that_is_named_often_is_kept_once(tmp_path: Path) -> None:
    array = np.zeros(1 << 22, np.uint8)
    (tmp_path / "x.bin").write_bytes(pickle.dumps(([array, b"x"] * 1000, [True, False] * 500), 4))
    start = time.process_time()
    assert len(read_bin(tmp_path / "x.bin").images) == 2
    assert time.process_time() - start < 5


def test_one_text_that_is_encoded_often_is_refused(tmp_path: Path) -> None:
    text = b"a" * 10_000
    named = b"c_codecs\nencode\nh\x01X\x06\x00\x00\x00latin1\x86R"
    data = b"\x80\x02]X" + struct.pack("<I", len(text)) + text + b"q\x010(" + named * 9 + b"e]\x88a\x86."
    (tmp_path / "x.bin").write_bytes(data)
    with pytest.raises(ValueError, match="makes more bytes than it has, by naming one text again and again"):
        read_bin(tmp_path / "x.bin")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("".join(f"k{i}=1\n" for i in range(150_000)), "has 1,[0-9,]+ bytes, and 1,048,576 are the most"),
        ("[head]\n" + "".join(f"k{i}=1\n" for i in range(50_000)), "and more mistakes than are told at once"),
        (".".join("a" * 200_000) + "=1", "has a key of more than 32 parts"),
        ("a=" + "[" * 200_000, "is not valid TOML: it is nested too deeply"),
        ("[train]\nduration='" + "9" * 500 + " epochs'", "is not the length of a run"),
    ],
)
def test_configs_that_ask_for_much_are_refused_in_time(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text, encoding="utf-8")
    start = time.process_time()
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path / "c.toml")
    assert time.process_time() - start < 5


def test_configs_that_extend_each_other_again_and_again_end(tmp_path: Path) -> None:
    for level in range(6):
        below = "" if level == 5 else f"extends = {[f'c{level + 1}'] * 10}\n"
        (tmp_path / f"c{level}.toml").write_text(below, encoding="utf-8")
    with pytest.raises(ValueError, match="a config may extend 64 files in all; take some 'extends' out"):
        load_config(tmp_path / "c0.toml")


def message(*fields: tuple[int, bytes]) -> bytes:
    """A protobuf message of fields with a length."""
    out = b""
    for number, content in fields:
        for value in (number << 3 | 2, len(content)):
            while value > 127:
                out += bytes([value & 127 | 128])
                value >>= 7
            out += bytes([value])
        out += content
    return out


def model(node: bytes = b"", tensor: bytes = b"") -> bytes:
    return message((7, message((1, node), (5, tensor))))


NESTED = message((4, b"If"), (5, message((6, message((1, message((4, b"Loop"))))))))
OUTSIDE = message((13, message((1, b"location"), (2, b"../../etc/passwd"))))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (
            model(message((4, b"Loop"))),
            "has a Loop node, which may run without end; export the network again",
        ),
        (model(NESTED), "has a Loop node, which may run without end"),
        (message((25, message((7, message((4, b"Scan")))))), "has a Scan node"),
        (model(tensor=OUTSIDE), r"has weights in '\.\./\.\./etc/passwd', which is not a file beside it"),
        (model()[:-1], "it is damaged; get a complete copy"),
        (b"", "it is empty"),
    ],
)
def test_a_graph_that_may_not_end_or_reads_elsewhere_is_refused(
    tmp_path: Path, data: bytes, text: str
) -> None:
    (tmp_path / "x.onnx").write_bytes(data)
    with pytest.raises(ValueError, match=text):
        check_onnx(tmp_path / "x.onnx")


def test_a_gallery_with_a_view_in_place_of_a_table_is_refused(tmp_path: Path) -> None:
    Gallery.create(tmp_path / "x.db", "f", 8, "m")
    with sqlite3.connect(tmp_path / "x.db") as db:
        db.execute("DROP TABLE faces")
        db.execute(
            "CREATE VIEW faces AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i FROM n"
        )
    db.close()
    with pytest.raises(ValueError, match="has other tables than a gallery; use a backup of it"):
        Gallery(tmp_path / "x.db")


def test_names_that_a_spreadsheet_would_run_make_the_round_trip(tmp_path: Path) -> None:
    names = ["=1+1.jpg", "@a.jpg", "-b.jpg", "c.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(jpeg(16))
    index = np.array([0, 2])
    same = np.array([True, False])
    pairs = Pairs("test", IndexedImages([b""] * 4, names), index, index + 1, same, np.array([0, 1]))
    write_csv(tmp_path / "p.csv", pairs)
    cells = [line.split(",")[0].strip('"') for line in (tmp_path / "p.csv").read_text("utf-8").splitlines()]
    assert cells[1:] == ["'=1+1.jpg", "'-b.jpg"]
    back: Any = read_csv(tmp_path / "p.csv").images
    assert [back.key(i) for i in range(4)] == names
