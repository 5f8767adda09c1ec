"""Time and memory of opening a .rec of ten million records, with its index and without.

python benchmarks/opening.py [--records 10000000]

"plain" reads the index with NumPy at once, sorts it, looks at every record by one index expression and
numbers the labels with `np.unique`. Each opening is a process of its own; counted are its CPU-seconds and the
growth of its peak memory.
"""

import argparse
import os
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

from facescale.data.readers.recordio import RecordReader
from facescale.data.readers.recordio_format import MAGIC

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


def main() -> None:
    """Print each opening beside the plain one."""
    parser = argparse.ArgumentParser(description="Time and memory of opening a .rec file.")
    parser.add_argument("--records", type=int, default=10_000_000)
    count = parser.parse_args().records
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
