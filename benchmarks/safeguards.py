"""What a training pays for the checks that it is the same run and in good health, as a share of its own time.

OMP_NUM_THREADS=1 python benchmarks/safeguards.py [--ids 40 --images 15 --backbone mbf]

A short training from a folder of images, continued once, with checkpoints and no evaluation. Timed within it,
in processor time: the digest of the images and the comparison with the run's, the lock on the folder, the
check of weights and embeddings before each checkpoint. Then the digest of record files of 1 and 10 million
images, as it would be taken of their index.
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

from facescale.config import load_config
from facescale.data import open_reader
from facescale.data.digest import digest_of
from facescale.data.readers.recordio import RecordReader
from facescale.prepare.convert_data import convert_data
from facescale.train import open_run, session, train
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


def timed(owner: Any, name: str, spent: dict[str, float], label: str) -> None:
    """Count the processor time of a function under ``label``."""
    function: Callable[..., Any] = getattr(owner, name)

    def call(*args: Any, **options: Any) -> Any:
        start = time.process_time()
        try:
            return function(*args, **options)
        finally:
            spent[label] += time.process_time() - start

    setattr(owner, name, call)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ids", type=int, default=40)
    parser.add_argument("--images", type=int, default=15)
    parser.add_argument("--backbone", default="mbf")
    args = parser.parse_args()
    spent: dict[str, float] = defaultdict(float)
    timed(session, "digest_of", spent, "digest")
    timed(open_run, "check_data", spent, "comparison")
    timed(session, "check_folder", spent, "folder and lock")
    timed(session, "Owner", spent, "folder and lock")
    timed(RecognitionTask, "is_sound", spent, "check of weights")
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "faces")
        convert_data(open_reader(f"synthetic:ids={args.ids},images={args.images}"), data, form="folder")
        words = [
            f"data.train={data}",
            f"backbone.name={args.backbone}",
            "train.batch_size=32",
            "eval.sets={}",
        ]
        start = time.process_time()
        for duration in (1, 2):
            train(load_config(None, [*words, f"train.duration={duration} epochs"]), Path(folder, "run"))
        total = time.process_time() - start
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for label, seconds in spent.items():
        print(f"{label:20} {seconds:8.3f} s  {seconds / total:8.4%} of the training")
    print(
        f"{'together':20} {sum(spent.values()):8.3f} s  {sum(spent.values()) / total:8.4%} of {total:.0f} s"
    )
    for count in (1_000_000, 10_000_000):
        reader = TenMillion(count)
        start = time.process_time()
        digest_of(reader)
        print(f"digest of {count:,} records: {time.process_time() - start:.2f} s")


if __name__ == "__main__":
    main()
