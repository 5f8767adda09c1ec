"""A tiny training that end-to-end tests share."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from facescale.config import Config, load_config
from facescale.distributed import Dist
from facescale.inference.torch_encoder import TorchEncoder
from facescale.train import Result, loop, train
from facescale.train.task import RecognitionTask

TINY = [
    "data.train=synthetic:ids=12,images=8,size=32",
    "backbone.name=mbf_s",
    "backbone.embedding_size=32",
    "backbone.input_size=32",
    "head.margin.scale=16",
    "head.margin.m=0.1",
    "head.margin.ramp=50%",
    "train.duration=6 steps",
    "train.batch_size=8",
    "train.log_every=2",
    "train.ema=0.5",
    "checkpoint.every=2 steps",
    "eval.every=3 steps",
    "eval.sets.unseen=synthetic:pairs=20",
]


@pytest.fixture(scope="session")
def tiny_config() -> Config:
    """Trains in seconds."""
    return load_config(None, TINY)


@pytest.fixture(scope="session")
def trained_tiny_run(tmp_path_factory: pytest.TempPathFactory, tiny_config: Config) -> Path:
    """A finished tiny run that all tests share; do not write into it, nor evaluate it."""
    result: Result = train(tiny_config, tmp_path_factory.mktemp("tiny") / "run")
    assert result.finished
    return result.run.path


@pytest.fixture
def tiny_run(trained_tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished tiny run, a copy for each test: an evaluation adds to its results."""
    return shutil.copytree(trained_tiny_run, tmp_path_factory.mktemp("tiny") / "run")


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Receives the number of images of each call of a network."""
    counts: list[int] = []
    embed = TorchEncoder.__call__

    def counted(self: TorchEncoder, images_BHW3: torch.Tensor) -> torch.Tensor:
        counts.append(len(images_BHW3))
        return embed(self, images_BHW3)

    monkeypatch.setattr(TorchEncoder, "__call__", counted)
    return counts


def train_steps(config: Config, run: Path, steps: int, dist: Dist | None = None) -> Result:
    """Train until a stop is asked for in step number ``steps`` of this sitting."""

    begun = 0
    begin_step = RecognitionTask.begin_step

    def counted(task: RecognitionTask, *args: float, **kwargs: float) -> None:
        nonlocal begun
        begun += 1
        begin_step(task, *args, **kwargs)

    @contextmanager
    def stopping() -> Iterator[Callable[[], bool]]:
        yield lambda: begun >= steps  # asked in evaluations, too

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RecognitionTask, "begin_step", counted)
        patch.setattr(loop, "stop_signals", stopping)
        return train(config, run, dist)
