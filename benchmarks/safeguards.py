"""What a training pays for the checks that it is the same run and in good health, as a share of its own time.

OMP_NUM_THREADS=1 python benchmarks/safeguards.py [--ids 40 --images 15 --backbone mbf --processes 2]

A short training from a folder of images, continued once, with checkpoints and no evaluation. Timed within it,
in processor time: the digest of the images and the comparison with the run's, the lock on the folder, the
check of weights and embeddings before each checkpoint, checksums of its files. With ``--processes 2`` also
what processes compare: config, code and data at the start, step and weights at each checkpoint; of the main
process, which waits in them for the others, so both its processor time and the time that passed are told.
Then the digest of record files of 1 and 10 million images, as it would be taken of their index.
"""

import argparse
import os
import platform
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as td
import torch.multiprocessing as mp

from facescale.checksums import Checksums
from facescale.config import load_config
from facescale.data import open_reader
from facescale.data.digest import digest_of
from facescale.data.readers.recordio import RecordReader
from facescale.distributed import Dist
from facescale.prepare.convert_data import convert_data
from facescale.train import checkpoint, milestones, open_run, session, train
from facescale.train.task import RecognitionTask


class TenMillion(RecordReader):
    """A record file of which there is the index alone."""

    def __init__(self, num_images: int) -> None:
        self._keys = np.arange(1, num_images + 1)
        self._offsets = np.cumsum(np.random.default_rng(0).integers(1000, 5000, num_images)) * 4
        self._labels = np.arange(num_images // 50)
        self.ids = np.repeat(self._labels, 50)
        self._fd = os.open(__file__, os.O_RDONLY)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return bytes(10_000), int(self.ids[index])


Spent = dict[str, list[float]]  # label -> seconds of the processor, seconds that passed

WATCHED: list[tuple[Any, str, str]] = [
    (session, "digest_of", "digest"),
    (open_run, "check_data", "comparison"),
    (session, "check_folder", "folder and lock"),
    (session, "Owner", "folder and lock"),
    (RecognitionTask, "is_sound", "check of weights"),
    (checkpoint, "newest_whole", "checksums"),
    (Checksums, "write_part", "checksums, with writing to disk"),
    (session, "compare_ranks", "ranks: config, code, data"),
    (session, "source_digest", "ranks: config, code, data"),
    (milestones, "compare_ranks", "ranks: step, weights"),
    (milestones, "weights_checksum", "ranks: step, weights"),
]


def clocks() -> list[float]:
    """Processor time of this process, and the time that has passed."""
    return [time.process_time(), time.perf_counter()]


def timed(owner: Any, name: str, spent: Spent, label: str) -> None:
    """Count the time of a function under ``label``."""
    function: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        start = clocks()
        try:
            return function(*args, **options)
        finally:
            spent[label] = [a + b - c for a, b, c in zip(spent[label], clocks(), start, strict=True)]

    setattr(owner, name, call)


def measured(rank: int, world_size: int, folder: str, words: list[str]) -> None:
    """Train twice as one of the processes, and print what the main one spent."""
    torch.set_num_threads(1)
    dist = Dist(rank, world_size)
    if world_size > 1:
        store = f"file://{folder}/store"
        td.init_process_group("gloo", init_method=store, rank=rank, world_size=world_size)
    spent: Spent = defaultdict(lambda: [0.0, 0.0])
    for owner, name, label in WATCHED:
        timed(owner, name, spent, label)
    start = clocks()
    for duration in (1, 2):
        train(load_config(None, [*words, f"train.duration={duration} epochs"]), Path(folder, "run"), dist)
    total = [b - a for a, b in zip(start, clocks(), strict=True)]
    if not dist.is_main:
        return
    # Writing to disk is what a checkpoint takes anyway
    sums = [sum(one[clock] for label, one in spent.items() if "disk" not in label) for clock in (0, 1)]
    for label, one in [*spent.items(), ("together, without writing", sums)]:
        shares = "  ".join(f"{a:8.3f} s {a / b:8.4%}" for a, b in zip(one, total, strict=True))
        print(f"{label:32} {shares}")
    print(f"{'training':32} {total[0]:8.1f} s            {total[1]:8.1f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=40)
    parser.add_argument("--images", type=int, default=15)
    parser.add_argument("--backbone", default="mbf")
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, {args.processes} processes"
    )
    print(f"{'':32} processor, share        passed, share", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "faces")
        convert_data(open_reader(f"synthetic:ids={args.ids},images={args.images}"), data, form="folder")
        words = [
            f"data.train={data}",
            f"backbone.name={args.backbone}",
            "train.batch_size=32",
            "eval.sets={}",
        ]
        mp.start_processes(
            measured, (args.processes, folder, words), nprocs=args.processes, start_method="fork"
        )
    for count in (1_000_000, 10_000_000):
        reader = TenMillion(count)
        start = time.process_time()
        digest_of(reader)
        print(f"digest of {count:,} records: {time.process_time() - start:.2f} s")


if __name__ == "__main__":
    main()
