"""Images per second from RecordIO to a normalised float batch, against a plain loader in the same run.

The plain loader uses Pillow, one float32 (3, H, W) tensor per sample, and torch's DataLoader with worker
processes. Both read the same file, shuffle, and flip half of the images.

    python benchmarks/loader.py --workers 2
"""

import argparse
import io
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader

from facescale.bench.plain import PlainDataset
from facescale.config import AugmentConfig
from facescale.data import open_reader
from facescale.data.loading.augment import Augment
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.writers.recordio import record_file

Batches = Callable[[int], Iterator[Tensor]]


def textured_jpeg(number: int) -> bytes:
    """A 112x112 JPEG of quality 95 and about 4 KB, as aligned faces have."""
    noise = np.random.default_rng(number).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2.6))
    file = io.BytesIO()
    image.point(lambda v: int(min(255, max(0, 128 + 3 * (v - 128))))).save(file, "JPEG", quality=95)
    return file.getvalue()


def plain_batches(path: Path, batch_size: int, workers: int) -> Batches:
    loader = DataLoader(
        PlainDataset(open_reader(path)), batch_size, shuffle=True, num_workers=workers, drop_last=True,
        persistent_workers=workers > 0,
    )  # fmt: skip
    return lambda epoch: (images for images, _ in loader)


def our_batches(path: Path, batch_size: int, workers: int) -> Batches:
    loader = TrainLoader(open_reader(path), batch_size=batch_size, seed=0, workers=workers)
    augment = Augment(AugmentConfig())
    return lambda epoch: (augment(batch.images[0], batch.random[0]) for batch in loader.epoch(epoch))


def images_per_second(batches: Batches, epoch: int, clock: Callable[[], float]) -> float:
    """Over an epoch from its first batch on; start-up is not what is compared."""
    images, start = 0, 0.0
    for batch in batches(epoch):
        images, start = (images + len(batch), start) if start else (0, clock())
    return images / (clock() - start)


def speeds_in_turn(
    ways: Mapping[str, Batches], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Images a second of each way, one for each round; a further round before them warms up."""
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for round_number in range(rounds + 1):
        for name, batches in ways.items():
            speed = images_per_second(batches, round_number, clock)
            if round_number:
                speeds[name].append(speed)
    return speeds


def arguments(description: str | None) -> argparse.Namespace:
    """The options of a benchmark of loading."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


def main() -> None:
    options = arguments(__doc__)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.rec"
        jpegs = [textured_jpeg(number) for number in range(256)]
        with record_file(path) as records:
            for key in range(options.images):
                records.append(key, (key % 100,), jpegs[key % len(jpegs)])
        ways = {
            "plain": plain_batches(path, options.batch_size, options.workers),
            "ours": our_batches(path, options.batch_size, options.workers),
        }
        speeds = speeds_in_turn(ways, options.rounds)
    size = sum(map(len, jpegs)) / len(jpegs)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}")
    print(
        f"{options.images} JPEGs of {size:.0f} bytes, batch {options.batch_size}, {options.workers} workers"
    )
    for name, values in speeds.items():
        print(f"{name:6s} {np.median(values):8.0f} images/s (from {min(values):.0f} to {max(values):.0f})")
    ratios = np.array(speeds["ours"]) / np.array(speeds["plain"])
    print(f"ratio  {np.median(ratios):8.2f} (from {ratios.min():.2f} to {ratios.max():.2f})")


if __name__ == "__main__":
    main()
