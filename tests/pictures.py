"""Small sets of made-up pictures for tests of readers, loaders and preparation."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from facescale.data.loading.decode import encode_jpeg
from facescale.data.readers.base import BadRecordError


def picture(number: int, size: int = 24) -> np.ndarray:
    """A smooth coloured pattern, uint8 (size, size, 3), different for each number and not symmetric."""
    y, x = np.mgrid[0:size, 0:size] / size
    waves = [
        np.sin(3 * x * (1 + number % 3) + number + c) + y * np.cos(number * 0.7 + 2 * c) for c in range(3)
    ]
    return np.clip(128 + 60 * np.stack(waves, axis=-1), 0, 255).astype(np.uint8)


class MemoryReader:
    """Pictures 0..n-1 as JPEG, raw where told so; ``bad`` ones cannot be read."""

    def __init__(self, ids: list[int], size: int = 24, bad: frozenset[int] = frozenset()) -> None:
        self.ids = np.array(ids, np.int64)
        self.num_ids = int(self.ids.max()) + 1
        self.images: list = [encode_jpeg(picture(i, size)) for i in range(len(ids))]
        self.bad = bad
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        self.asked.append(index)
        if index in self.bad:
            raise BadRecordError("made to fail")
        return self.images[index], int(self.ids[index])

    def key(self, index: int) -> str:
        return f"memory/{index}"


@pytest.fixture
def make_reader() -> Callable[..., MemoryReader]:
    return MemoryReader


@pytest.fixture
def make_picture() -> Callable[..., np.ndarray]:
    return picture


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write {relative path: bytes} below a folder; by default 3 identities of 2, 3 and 1 images."""

    def make(files: dict[str, bytes] | None = None, name: str = "faces") -> Path:
        default = {
            f"{who}/{n}.jpg": encode_jpeg(picture(10 * i + n))
            for i, (who, count) in enumerate((("ann", 2), ("bob", 3), ("cy", 1)))
            for n in range(count)
        }
        for path, data in (default if files is None else files).items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(data)
        return tmp_path / name

    return make


def fill(folder: Path, files: dict[str, str]) -> Path:
    """Write texts as if they were images (nothing decodes them), by path below ``folder``; returns it."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder
