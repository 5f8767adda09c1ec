"""A small data set of coloured patterns with errors planted in it, and a network that tells them apart."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from facescale.data.loading.decode import encode_jpeg
from facescale.inference.model import Model
from facescale.model_card import Card, Contract

SIZE = 56
PEOPLE, IMAGES = 50, 8
FLIPPED = {"p03/7.jpg": "p11", "p08/7.jpg": "p20", "p15/7.jpg": "p05"}
SPLIT, MERGED = ("p06", "p06b"), "p09"


def coarse(rng: np.random.Generator, cells: int, strength: float) -> np.ndarray:
    """A smooth random pattern, float (SIZE, SIZE, 3)."""
    small = Image.fromarray((127 + 40 * rng.standard_normal((cells, cells, 3))).clip(0, 255).astype(np.uint8))
    large = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float64)
    return strength * (large - 127)


def portrait(person: int, photo: int) -> np.ndarray:
    """One photo of a person: what is coarse shows who, what is fine shows which photo."""
    who, which = np.random.default_rng(1000 + person), np.random.default_rng(10_000 * person + photo)
    pixels = 127 + coarse(who, 5, 1.0) + coarse(which, 5, 0.5) + coarse(which, 28, 0.5)
    return pixels.clip(0, 255).astype(np.uint8)


def resaved(pixels: np.ndarray, cut: int = 2) -> bytes:
    """A cropped copy of a photo, scaled back and saved again."""
    inner = Image.fromarray(pixels[cut:, : SIZE - cut])
    return encode_jpeg(np.asarray(inner.resize((SIZE, SIZE), Image.Resampling.BICUBIC)), 70)


class Coarse(nn.Module):
    """Embeds what is coarse."""

    embedding_size, input_size = 75, SIZE

    def forward(self, x_B3HW: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x_B3HW, 5).flatten(1)


def coarse_model() -> Model:
    return Model.of(Coarse().eval(), Card(Contract(size=SIZE, flip=False, resize="area")), "cpu")


def planted_files() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Files of a training set and of a test set, by path."""
    train = {
        f"p{person:02d}/{photo}.jpg": encode_jpeg(portrait(person, photo))
        for person in range(PEOPLE)
        for photo in range(IMAGES)
    }
    for key, home in FLIPPED.items():
        train[key] = encode_jpeg(portrait(int(home[1:]), 50))
    for photo in range(IMAGES):
        train[f"{SPLIT[1]}/{photo}.jpg"] = encode_jpeg(portrait(6, 20 + photo))
    for photo in range(5):
        train[f"{MERGED}/other{photo}.jpg"] = encode_jpeg(portrait(70, photo))
    train["p02/again.jpg"] = train["p02/1.jpg"]
    train["p04/cropped.jpg"] = resaved(portrait(4, 2))
    train["p13/elsewhere.jpg"] = resaved(portrait(12, 3))
    test = {
        f"t{person}/{photo}.jpg": encode_jpeg(portrait(person, photo))
        for person in range(80, 150)
        for photo in range(3)
    }
    for photo in range(3):
        test[f"known/{photo}.jpg"] = encode_jpeg(portrait(17, 30 + photo))  # other photos of p17
    test["t81/same.jpg"] = resaved(portrait(19, 4))  # a photo of p19
    return train, test


@pytest.fixture
def planted(make_folder: Callable[..., Path]) -> tuple[Path, Path]:
    """Folders of the training set and of the test set."""
    train, test = planted_files()
    return make_folder(train, "train"), make_folder(test, "test")


@pytest.fixture
def with_coarse_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ``clean`` load `coarse_model`, whatever it is asked for."""
    monkeypatch.setattr("facescale.clean.run.load", lambda path, device: coarse_model())
