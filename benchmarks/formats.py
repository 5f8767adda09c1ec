"""Images per CPU-second of the loader on each data format, against RecordIO and against the bare decoder.

All ways take turns on the same JPEGs of 112 pixels and give uint8 batches, as training takes them. The bare
decoder decodes them from memory into one buffer on as many threads as the loader has. CPU-seconds of the
process (all its threads) are counted, so that other work on the machine matters little. loader.py compares
with a plain loader.

    python benchmarks/formats.py --workers 2
"""

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from loader import textured_jpeg
from torch import Tensor

from facescale.data import open_reader
from facescale.data.loading.decode import decode_into
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.readers.base import Reader
from facescale.data.writers import WRITERS
from facescale.prepare.convert_data import convert_data

Batches = Callable[[int], Iterator[Tensor]]


class Drawn:
    """Images of 100 people, some JPEGs over and over."""

    num_ids = 100

    def __init__(self, num_images: int) -> None:
        self.jpegs = [textured_jpeg(number) for number in range(256)]
        self.ids = np.arange(num_images) % self.num_ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[bytes, int]:
        return self.jpegs[index % len(self.jpegs)], int(self.ids[index])

    def key(self, index: int) -> str:
        """Number of the image."""
        return str(index)


def bare_decoder(reader: Reader, batch_size: int, workers: int) -> Batches:
    """Decode from memory, and do nothing else."""

    def part(start: int, out: np.ndarray) -> None:
        for offset in range(start, batch_size, workers):
            decode_into(out[offset], reader[offset][0])

    def batches(epoch: int) -> Iterator[Tensor]:
        out = np.empty((batch_size, 112, 112, 3), np.uint8)
        with ThreadPoolExecutor(workers) as pool:
            for _ in range(len(reader) // batch_size):
                list(pool.map(part, range(workers), [out] * workers))
                yield torch.from_numpy(out)

    return batches


def loader_batches(path: Path, batch_size: int, workers: int) -> Batches:
    """What a training gets from a data set."""
    loader = TrainLoader(open_reader(path), batch_size=batch_size, seed=0, workers=workers)
    return lambda epoch: (batch.images[0] for batch in loader.epoch(epoch))


def images_per_cpu_second(batches: Batches, epoch: int) -> float:
    """Over an epoch from its first batch on; start-up is not what is compared."""
    images, start = 0, 0.0
    for batch in batches(epoch):
        images, start = (images + len(batch), start) if start else (0, time.process_time())
    return images / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    source, size, workers = Drawn(options.images), options.batch_size, options.workers
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Batches] = {"decoder": bare_decoder(source, size, workers)}
        for form in WRITERS:
            convert_data(source, Path(folder) / form, form=form)
            ways[form] = loader_batches(Path(folder) / form, size, workers)
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(options.rounds + 1):
            for name, batches in ways.items():
                speed = images_per_cpu_second(batches, round_number)
                if round_number:  # the first round warms up
                    speeds[name].append(speed)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for name, values in speeds.items():
        rates = {to: np.array(values) / np.array(speeds[to]) for to in ("recordio", "decoder")}
        parts = [f"{np.median(x):.2f} of {to} ({x.min():.2f} to {x.max():.2f})" for to, x in rates.items()]
        print(f"{name:10s} {np.median(values):7.0f} images per CPU-second, {', '.join(parts)}")


if __name__ == "__main__":
    main()
