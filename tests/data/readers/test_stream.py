"""Tar shards that are read forward: compressed, or behind a URL without ranges."""

import bz2
import functools
import gzip
import http.server
import lzma
import os
import pickle
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from facescale.data import open_reader
from facescale.data.digest import digest_of
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.notes import alignment_notes
from facescale.data.readers import stream as streaming
from facescale.data.readers.base import BadRecordError
from facescale.data.sampling.draws import InWindows, make_draws
from facescale.data.sampling.multiview import make_sampler
from facescale.data.writers import shards as writing
from facescale.prepare.convert_data import convert_data

IDS = [0, 0, 1, 1, 1, 2, 2, 0, 1, 2] * 3


@pytest.fixture
def packed(make_reader, tmp_path, monkeypatch) -> Path:
    """Thirty images of three people in eight shards of four."""
    monkeypatch.setattr(writing, "_IMAGES", 4)
    return convert_data(make_reader(IDS), tmp_path / "set", form="shards").folder


def compressed(packed: Path, suffix: str, compress) -> Path:
    folder = packed.parent / f"packed{suffix}"
    folder.mkdir()
    for path in packed.glob("*.tar"):
        (folder / f"{path.name}{suffix}").write_bytes(compress(path.read_bytes()))
    return folder


@pytest.fixture
def zipped(packed) -> Path:
    return compressed(packed, ".gz", gzip.compress)


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
def test_compressed_shards_hold_what_plain_ones_hold(packed, make_reader, suffix, compress):
    reader = open_reader(f"stream:{compressed(packed, suffix, compress)}")
    plain = open_reader(packed)
    expected = [plain[i] for i in range(30)]
    assert [reader[i] for i in range(30)] == expected
    assert [reader[i] for i in (29, 3, 17, 2)] == [expected[i] for i in (29, 3, 17, 2)]
    again = pickle.loads(pickle.dumps(reader))
    assert (again[5], again.ids.tolist()) == (expected[5], plain.ids.tolist())
    assert digest_of(reader).count_N.tolist() == digest_of(plain).count_N.tolist()


def order(sampler, epoch: int) -> list[int]:
    return sampler.indices(epoch, np.arange(len(sampler)))[0].tolist()


def test_every_image_comes_once_an_epoch_near_its_neighbours_in_an_order_of_its_own():
    first_S = np.array([0, 40, 100, 130, 190, 250])
    sampler = make_sampler(np.zeros(300, np.int64), 1, draws=InWindows(300, first_S, 50, 1))
    epochs = [order(sampler, epoch) for epoch in range(3)]
    assert all(sorted(one) == list(range(300)) for one in epochs)
    assert len({tuple(one) for one in epochs}) == 3
    for one in epochs:
        shards = np.searchsorted(first_S, one, side="right")
        for start in range(0, 300, 50):
            assert len(set(shards[start : start + 50])) <= 3
            assert one[start : start + 50] != sorted(one[start : start + 50])
    assert sampler.indices(1, np.array([77]))[0, 0] == epochs[1][77]
    near = sampler.near(np.full(1000, 60), np.arange(1000, dtype=np.uint64))
    assert set(near.tolist()) == set(range(50, 100))


def batches(spec: str, start: int = 0, **process):
    reader = open_reader(spec)
    stream = (reader.first_S, reader.window)
    sampler = make_sampler(reader.ids, 3, draws=make_draws(reader.ids, 3, stream=stream))
    loader = TrainLoader(
        reader, sampler=sampler, batch_size=6 // process.get("world_size", 1), seed=3, size=24, **process
    )
    return reader, list(loader.epoch(1, start))


def test_a_training_reads_each_shard_once_an_epoch_and_continues_anywhere(zipped, monkeypatch):
    spec = f"stream:{zipped}?window=8"
    # Without workers: they hold 24 images at once, three windows, and what a late one needs may be gone.
    whole_reader, whole = batches(spec, workers=0)
    assert whole_reader._read == 30
    assert sorted(index for batch in whole for index in batch.index.tolist()) == list(range(30))
    for start in (1, 3):
        _, rest = batches(spec, start, workers=1)
        for one, other in zip(whole[start:], rest, strict=True):
            assert one.index.tolist() == other.index.tolist() and bool((one.images == other.images).all())
    halves = [batches(spec, rank=rank, world_size=2)[1] for rank in range(2)]
    for step, batch in enumerate(whole):
        assert batch.index.tolist() == [i for half in halves for i in half[step].index.tolist()]


def test_an_image_that_cannot_be_decoded_is_replaced_by_one_at_hand(
    packed, make_reader, tmp_path, monkeypatch
):
    source = make_reader(IDS)
    source.images[11] = b"\xff\xd8\xff broken"
    folder = convert_data(source, tmp_path / "bad", form="shards").folder
    reader = open_reader(f"stream:{folder}?window=8")
    sampler = make_sampler(reader.ids, 3, draws=make_draws(reader.ids, 3, stream=(reader.first_S, 8)))
    loader = TrainLoader(reader, sampler=sampler, batch_size=6, seed=3, size=24, max_bad_share=0.5, workers=0)
    found = [index for batch in loader.epoch(0) for index in batch.index.tolist()]
    place = order(sampler, 0).index(11)
    window = order(sampler, 0)[place // 8 * 8 : place // 8 * 8 + 8]
    assert 11 not in found and found[place] in window
    assert reader._read == 30


def test_an_order_that_no_stream_can_follow_is_refused(zipped, monkeypatch):
    advice = r"copy (it|them) to shards first: facescale convert-data stream:\.\.\. FOLDER --form shards"
    ids = np.array(IDS)
    stream = (np.array([0, 15]), 8)
    for changed in ({"sampling": "balanced"}, {"weights": [1.0]}):
        with pytest.raises(ValueError, match=rf"data.sampling and data.weights draw any image, .*{advice}"):
            make_draws(ids, 1, stream=stream, **changed)
    with pytest.raises(
        ValueError, match=rf"this head takes several images of an identity together, .*{advice}"
    ):
        make_sampler(ids, 1, keys=1, draws=make_draws(ids, 1, stream=stream))
    with pytest.raises(ValueError, match=rf"cannot be joined, edited or thinned out; {advice}"):
        open_reader([f"stream:{zipped}", f"stream:{zipped}"])
    monkeypatch.setattr(streaming, "_PATIENCE", 1)
    monkeypatch.setattr(streaming, "_AT_LEAST", 1)
    reader = open_reader(f"stream:{zipped}?window=1")
    with pytest.raises(ValueError, match=rf"in an order that a stream cannot follow; {advice}"):
        [reader[i] for i in range(30) for i in (i % 8, 29 - i % 8)]


def test_a_stream_is_copied_to_an_indexed_set_with_the_same_images(zipped, packed):
    copy = convert_data(open_reader(f"stream:{zipped}"), packed.parent / "copy", form="recordio").folder
    plain, copied = open_reader(packed), open_reader(copy)
    assert sorted(copied[i][0] for i in range(30)) == sorted(plain[i][0] for i in range(30))


def test_a_shard_that_was_cut_is_named(zipped):
    path = zipped / "train-000003.tar.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[:-200])
    with pytest.raises(ValueError, match=r"cannot read '.*train-000003.tar.gz': "):
        open_reader(f"stream:{zipped}")
    path.write_bytes(whole)
    reader = open_reader(f"stream:{zipped}")
    path.write_bytes(gzip.compress(gzip.decompress(whole)[:1600]))
    with pytest.raises(
        BadRecordError, match=r"ends before its last byte|it ends at byte 1,600, within an image"
    ):
        [reader[i] for i in range(30)]
    path.write_bytes(b"no gzip")
    with pytest.raises(ValueError, match=r"cannot read '.*': Not a gzipped file"):
        open_reader(f"stream:{zipped}")


def test_an_image_of_absurd_size_is_not_read(zipped, monkeypatch):
    reader = open_reader(f"stream:{zipped}")
    monkeypatch.setattr(streaming, "_LARGEST", 10)
    with pytest.raises(BadRecordError, match=r"the image has .* bytes, more than any photo"):
        reader[0]


def test_what_can_be_read_once_only_or_is_missing_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(ValueError, match=r"it is not a regular file, and a set of images must be readable"):
        open_reader(f"stream:{tmp_path}/pipe.tar")
    with pytest.raises(ValueError, match=r"cannot read the shard '.*no.tar': No such file"):
        open_reader(f"stream:{tmp_path}/no.tar")
    with pytest.raises(ValueError, match=r"window = 0 of '.*' must be at least 1 image"):
        open_reader(f"stream:{tmp_path}?window=0")


def test_a_url_without_fsspec_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ValueError, match=r"needs fsspec; install it with: pip install 'facescale\[remote\]'"):
        open_reader("stream:http://nowhere/a.tar")


def test_the_notes_look_at_the_first_images_of_a_stream(zipped):
    reader = open_reader(f"stream:{zipped}")
    alignment_notes(reader, 4)
    assert reader._read == 4


class NoRanges(http.server.SimpleHTTPRequestHandler):
    """Sends whole files in chunks, and tells nothing of their size."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_error(405)

    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(data), 1000):
            part = data[start : start + 1000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


@pytest.fixture
def address(packed):
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(NoRanges, directory=str(packed))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_gives_no_ranges_is_read_forward(address, packed, tmp_path, monkeypatch):
    pytest.importorskip("fsspec")
    pytest.importorskip("aiohttp")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    shards = "train-{000000..000007}.tar"
    with pytest.raises(
        ValueError, match=r"does not tell its size, .* or read it forward with stream:|cannot read"
    ):
        open_reader(f"shards:{address}/{shards}")
    reader, plain = open_reader(f"stream:{address}/{shards}"), open_reader(packed)
    assert [reader[i] for i in range(30)] == [plain[i] for i in range(30)]
