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
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from facescale.config import AugmentConfig
from facescale.data import open_reader
from facescale.data.loading.augment import Augment
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.writers.recordio import record_file


def textured_jpeg(number: int) -> bytes:
    """A 112x112 JPEG of quality 95 and about 4 KB, as aligned faces have."""
    noise = np.random.default_rng(number).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2.6))
    file = io.BytesIO()
    image.point(lambda v: int(min(255, max(0, 128 + 3 * (v - 128))))).save(file, "JPEG", quality=95)
    return file.getvalue()


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """One decoded, flipped, normalised float tensor per sample."""

    def __init__(self, path: Path) -> None:
        self._reader = open_reader(path)

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        data, identity = self._reader[index]
        assert isinstance(data, bytes)
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
        return (image.flip(2) if torch.rand(()) < 0.5 else image), identity


def plain_batches(path: Path, batch_size: int, workers: int) -> Callable[[int], Iterator[Tensor]]:
    loader = DataLoader(
        PlainDataset(path), batch_size, shuffle=True, num_workers=workers, drop_last=True,
        persistent_workers=workers > 0,
    )  # fmt: skip
    return lambda epoch: (images for images, _ in loader)


def our_batches(path: Path, batch_size: int, workers: int) -> Callable[[int], Iterator[Tensor]]:
    loader = TrainLoader(open_reader(path), batch_size=batch_size, seed=0, workers=workers)
    augment = Augment(AugmentConfig())
    return lambda epoch: (augment(batch.images[0], batch.random[0]) for batch in loader.epoch(epoch))


def measure(batches: Callable[[int], Iterator[Tensor]], epoch: int) -> tuple[int, float]:
    """Images and wall seconds of an epoch, from its first batch on (start-up is not what is compared)."""
    images, start = 0, 0.0
    for batch in batches(epoch):
        images, start = (images + len(batch), start) if start else (0, time.perf_counter())
    return images, time.perf_counter() - start


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
        speeds: dict[str, list[float]] = {name: [] for name in ways}
        for round_number in range(options.rounds + 1):
            for name, batches in ways.items():
                images, seconds = measure(batches, round_number)
                if round_number:  # the first round warms up
                    speeds[name].append(images / seconds)
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
