"""A network of a few hundred weights, so that a whole training takes a fraction of a second."""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from facescale.config import load_config
from facescale.run import RunDir
from facescale.train import Result, train

IDS, IMAGES, SIZE, D = 12, 8, 32, 16

SETTINGS = [
    f"data.train=synthetic:ids={IDS},images={IMAGES},size={SIZE}",
    "data.workers=0",
    "augment.flip=false",
    "backbone.name=toy",
    f"backbone.embedding_size={D}",
    "head.products=float32",
    "head.margin.scale=16",
    "head.margin.m=0.2",
    "optim.lr=0.4",
    "optim.reference_batch=32",
    "train.duration=6 steps",
    "train.batch_size=16",
    "train.precision=fp32",
    "train.log_every=1",
    "checkpoint.every=1000 steps",
    "checkpoint.keep=100",
    "eval.every=6 steps",
    "eval.sets.unseen=synthetic:pairs=20",
]

# every head, and every place of class centres
HEADS = {
    "memory": ["head.name=full"],
    "host": ["head.name=partial_fc", "head.rate=0.5", "head.placement=host"],
    "disk": ["head.name=partial_fc", "head.rate=0.5", "head.placement=disk"],
    "attfc": ["head.name=attfc", "head.share=0.5"],
    "f2c": ["head.name=f2c", "head.share=0.5"],
}


class Toy(nn.Module):
    """Convolution, batch norm, PReLU, linear layer: one parameter of every kind.

    Args:
        embedding_size: D.
        bad_at: number of the forward pass in training mode (from 0) whose embeddings are infinite; -1: none.
        bad_gradient_at: number of the one whose gradient is infinite, while its embeddings are not.
        dropout: share of the embedding's numbers that are dropped in training.
        constant: all images have nearly the same embedding.
        input_size: height and width of the images.

    Attributes:
        seen: inputs of the forward passes in training mode, where a test set it to a list.
        passed: inputs of all forward passes, likewise.
        autocast: whether autocast was on, of every forward pass, where a test set it to a list.
    """

    seen: ClassVar[list[Tensor] | None] = None
    passed: ClassVar[list[Tensor] | None] = None
    autocast: ClassVar[list[bool] | None] = None

    def __init__(
        self,
        embedding_size: int,
        *,
        bad_at: int = -1,
        bad_gradient_at: int = -1,
        dropout: float = 0.0,
        constant: bool = False,
        input_size: int = SIZE,
    ) -> None:
        super().__init__()
        self.embedding_size, self.input_size = embedding_size, input_size
        self.bad_at, self.bad_gradient_at, self.passes, self.constant = bad_at, bad_gradient_at, 0, constant
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 8, stride=8, bias=False), nn.BatchNorm2d(4), nn.PReLU(4), nn.Flatten()
        )
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(64, embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        """Embed normalised images (B, 3, S, S)."""
        embedding = self.dropout(self.fc(self.features(x)))
        if self.constant:
            embedding = embedding * 1e-3 + 1
        if Toy.autocast is not None:
            Toy.autocast.append(torch.is_autocast_enabled("cpu"))
        if Toy.passed is not None:
            Toy.passed.append(x.detach().clone())
        if self.training:
            if Toy.seen is not None:
                Toy.seen.append(x.detach().clone())
            if self.passes == self.bad_at:
                embedding = embedding * torch.inf
            if self.passes == self.bad_gradient_at:
                embedding.register_hook(lambda gradient: gradient * torch.inf)
            self.passes += 1
        return embedding


def train_toy(path: Path, *settings: str, **options: Any) -> Result:
    """Train the toy network with ``settings`` on top of the usual ones."""
    return train(load_config(None, [*SETTINGS, *settings]), path / "run", **options)


def weights(run: RunDir, step: int) -> dict[str, Tensor]:
    """Saved weights of the network that is evaluated."""
    from safetensors.torch import load_file

    return load_file(run.snapshot(step) / "model.safetensors")


def saved_state(run: RunDir, step: int) -> dict[str, Tensor]:
    """Every tensor of a checkpoint's state, by its path of keys."""
    flat: dict[str, Tensor] = {}

    def walk(item: Any, path: str) -> None:
        if isinstance(item, Tensor):
            flat[path] = item
        elif isinstance(item, dict):
            for key, value in item.items():
                walk(value, f"{path}.{key}".removeprefix("."))

    walk(torch.load(run.snapshot(step) / "state.pt", weights_only=True), "")
    return flat
