"""Time and memory of opening a .rec of ten million records, with its index and without, and large sets again.

python benchmarks/opening.py [--records 10000000]
python benchmarks/opening.py --again [--records 40000000]

"plain" reads the index with NumPy at once, sorts it, looks at every record by one index expression and
numbers the labels with `np.unique`. Each opening is a process of its own; counted are its CPU-seconds and the
growth of its peak memory.

``--again`` opens sets of each packed form from the index that their first opening leaves. The files are
sparse, and the index is written as the readers write it: no image is read. "plain" reads the same columns
into memory from an uncompressed .npz.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np

from facescale.data import open_reader
from facescale.data.readers.recordio import RecordReader
from facescale.data.readers.recordio_format import MAGIC
from facescale.data.readers.saved_index import index_places, save_index, state_of
from facescale.data.readers.shard_files import LocalFiles
from facescale.data.readers.shard_index import state_of_files

_WORDS = 10  # of a record: a frame, a header, 5 bytes of "image"


def make(folder: Path, count: int) -> None:
    """Write ``train.rec`` and ``train.idx`` with ten records of each identity."""
    words = np.zeros((count, _WORDS), "<u4")
    words[:, 0], words[:, 1], words[:, 4] = MAGIC, 29, np.arange(count)
    words[:, 3] = (np.arange(count) % max(1, count // 10)).astype("<f4").view("<u4")
    words.tofile(folder / "train.rec")
    with (folder / "train.idx").open("w", encoding="ascii") as file:
        for start in range(0, count, 1 << 20):
            stop = min(start + (1 << 20), count)
            file.write("".join(f"{key}\t{4 * _WORDS * key}\n" for key in range(start, stop)))


def plain(folder: Path) -> int:
    """Open the set with its index, all at once."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        numbers = np.fromstring((folder / "train.idx").read_text("ascii"), np.int64, sep=" ")
    keys, offsets = numbers[0::2], numbers[1::2]
    order = np.argsort(keys, kind="stable")
    offsets = offsets[order]
    words = np.memmap(folder / "train.rec", np.dtype("<u4"), "r")
    assert (words[offsets // 4] == MAGIC).all()
    return len(np.unique(words.view("<f4")[offsets // 4 + 3].astype(np.int64), return_inverse=True)[0])


def opened(folder: Path) -> int:
    """Open the set as facescale does."""
    return RecordReader(folder / "train.rec").num_ids


def measured(open_set: Callable[[Path], int], folder: Path) -> tuple[float, int]:
    """CPU-seconds and megabytes of one opening, in a child."""
    receive, send = os.pipe()
    if os.fork() == 0:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
        before, start = _peak(), time.process_time()
        open_set(folder)
        os.write(send, f"{time.process_time() - start} {_peak() - before}".encode())
        os._exit(0)
    os.wait()
    seconds, size = os.read(receive, 100).split()
    return float(seconds), int(size)


def _peak() -> int:
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def make_again(folder: Path, count: int) -> dict[str, Path]:
    """Sets of ``count`` images of 4 KB, ten of each identity, with their kept index; the path of each."""
    sets = {"recordio": folder / "train.rec", "shards": folder / "s.tar", "lmdb": folder / "lmdb"}
    number = np.arange(count)
    offset, labels = 4096 * number, np.arange(-(-count // 10))
    end = (np.arange(count + 1) * 9).astype(np.int32)
    keys = np.char.zfill(np.arange(1000).astype("S"), 9).view(np.uint8)
    shared = {"id": number // 10, "label": labels}
    texts = {"keys": np.tile(keys, -(-count // 1000))[: 9 * count], "ends": end}
    (folder / "lmdb").mkdir()
    with lmdb.open(str(folder / "lmdb")) as database, database.begin(write=True) as transaction:
        transaction.put(b"0", b"0")
    listing = folder / "lmdb" / "train_kv.txt"
    for path in (sets["recordio"], sets["shards"], listing):
        with path.open("wb") as file:
            file.truncate(4096 * count)
    size = np.full(count, 4000, np.int32)
    none = {"folders": np.empty(0, np.uint8), "folder_ends": np.zeros(1, np.int32)}
    places = {"shard": np.zeros(count, np.int32), "offset": offset, "size": size}
    rec, tar = sets["recordio"], LocalFiles([str(sets["shards"])])
    first = {"offset": offset, "key": np.ones(1, np.int64)}
    save_index(index_places([str(rec)]), state_of(rec, rec.with_suffix(".idx")), {**first, **shared})
    save_index(index_places(tar.names), state_of_files(tar), {**places, **shared, **texts, **none})
    save_index(index_places([str(listing)]), state_of(listing), {**shared, **texts})
    np.savez(folder / "plain.npz", **{**places, **shared, **texts})
    return sets


def again(count: int) -> None:
    """Print the second opening of each form beside the plain one."""
    with tempfile.TemporaryDirectory() as name:
        sets = make_again(Path(name), count)

        def plain_columns(path: Path) -> int:
            with np.load(path) as file:
                return len({column: file[column] for column in file}["label"])

        seconds, size = measured(plain_columns, Path(name) / "plain.npz")
        print(f"plain: {seconds:.2f} s, {size} MB")
        for form, path in sets.items():
            own, own_size = measured(lambda place: open_reader(place).num_ids, path)
            print(f"{form}, again: {own:.2f} s ({own / seconds:.2f}), {own_size} MB ({own_size / size:.2f})")


def main() -> None:
    """Print each opening beside the plain one."""
    parser = argparse.ArgumentParser(description="Time and memory of opening large sets.")
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("--again", action="store_true", help="open sets from the index that they keep")
    words = parser.parse_args()
    count = words.records
    if words.again:
        return again(count)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, count)
        seconds, size = measured(plain, folder)
        print(f"plain: {seconds:.2f} s, {size} MB")
        for case in ("with the index", "without"):
            if case == "without":
                (folder / "train.idx").unlink()
            own, own_size = measured(opened, folder)
            print(f"{case}: {own:.2f} s ({own / seconds:.2f}), {own_size} MB ({own_size / size:.2f})")


if __name__ == "__main__":
    main()
