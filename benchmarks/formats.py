"""Images per CPU-second of the loader on each data format, against RecordIO and against the bare decoder.

All ways take turns on the same JPEGs of 112 pixels and give uint8 batches, as training takes them. The bare
decoder decodes them from memory into one buffer on as many threads as the loader has. CPU-seconds of the
process (all its threads) are counted, so that other work on the machine matters little. loader.py compares
with a plain loader.

    python benchmarks/formats.py --workers 2
"""

import os
import platform
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from loader import Batches, arguments, speeds_in_turn, textured_jpeg
from torch import Tensor

from facescale.data import open_reader
from facescale.data.loading.decode import decode_into
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.readers.base import Reader
from facescale.data.writers import WRITERS
from facescale.prepare.convert_data import convert_data


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


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    source, size, workers = Drawn(options.images), options.batch_size, options.workers
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Batches] = {"decoder": bare_decoder(source, size, workers)}
        for form in WRITERS:
            convert_data(source, Path(folder) / form, form=form)
            ways[form] = loader_batches(Path(folder) / form, size, workers)
        speeds = speeds_in_turn(ways, options.rounds, time.process_time)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    for name, values in speeds.items():
        rates = {to: np.array(values) / np.array(speeds[to]) for to in ("recordio", "decoder")}
        parts = [f"{np.median(x):.2f} of {to} ({x.min():.2f} to {x.max():.2f})" for to, x in rates.items()]
        print(f"{name:10s} {np.median(values):7.0f} images per CPU-second, {', '.join(parts)}")


if __name__ == "__main__":
    main()
