"""Measure one stage (train, loader, evaluate) one way (ours, plain) in the process that calls."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from facescale import backbones
from facescale.bench.plain import PlainTraining, forever, plain_layers, plain_loader, wait
from facescale.config import AugmentConfig, Config
from facescale.data import open_reader
from facescale.data.loading.augment import Augment
from facescale.data.loading.decode import decode
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.readers.base import Reader
from facescale.distributed import Dist
from facescale.inference.model import Model
from facescale.inference.torch_encoder import TorchEncoder
from facescale.model_card import Card, Contract
from facescale.plan.check import read_config
from facescale.plan.measure import peak_memory
from facescale.train import train


@dataclass(frozen=True)
class Stage:
    """What a process of its own measures; goes there as JSON.

    Attributes:
        kind: train, loader or evaluate.
        way: ours, plain, or decode (of loader: the decoder alone).
        backbone: name of the network; loader has none.
        batch_size: images of a step.
        data: spec of the images.
        workers: decoding threads or processes.
        steps: timed steps; a quarter as many come before.
        device: where it computes.
        threads: of torch; 0 leaves them as they are.
    """

    kind: str
    way: str
    backbone: str
    batch_size: int
    data: str
    workers: int
    steps: int
    device: str
    threads: int

    @property
    def warm_up(self) -> int:
        """Steps that are not timed."""
        return max(1, self.steps // 4)


Figures = dict[str, float]


def measure_stage(stage: Stage) -> Figures:
    """Figures of a stage: images_per_s, peak_bytes, and of a training the share of time without data."""
    if stage.threads:
        torch.set_num_threads(stage.threads)
    figures = _MEASURES[stage.kind, stage.way](stage)
    peak = peak_memory(torch.device(stage.device))
    return {**figures, "peak_bytes": float(peak or 0)}


def _config(stage: Stage) -> Config:
    total = stage.warm_up + stage.steps
    return read_config(
        None,
        [
            f"data.train={json.dumps(stage.data)}",
            f"data.workers={stage.workers}",
            f"backbone.name={stage.backbone}",
            "data.resize=true",
            f"train.batch_size={stage.batch_size}",
            f"train.duration={total} steps",
            "train.log_every=1",
            "checkpoint.every=100%",
            "eval.sets={}",
        ],
    )


def _train(stage: Stage) -> Figures:
    lines: list[Mapping[str, Any]] = []
    with TemporaryDirectory() as folder:
        dist = Dist(device=torch.device(stage.device))
        train(_config(stage), Path(folder) / "run", dist, lambda line, plan: lines.append(line))
    timed = [line for line in lines if line["kind"] == "train"][stage.warm_up :]
    seconds = [stage.batch_size / line["images_per_s"] for line in timed]
    waited = sum(line["wait_share"] * one for line, one in zip(timed, seconds, strict=True))
    return {
        "images_per_s": len(timed) * stage.batch_size / sum(seconds),
        "data_share": waited / sum(seconds),
    }


def _plain_train(stage: Stage) -> Figures:
    reader, device = open_reader(stage.data), torch.device(stage.device)
    step = PlainTraining(backbones.build(stage.backbone), reader.num_ids, device)
    batches = forever(plain_loader(reader, stage.batch_size, stage.workers))
    waited = 0.0
    for number in range(stage.warm_up + stage.steps):
        if number == stage.warm_up:
            start, waited = wait(device), 0.0
        before = wait(device)
        images, ids = next(batches)
        waited += wait(device) - before
        step(images, ids)
    seconds = wait(device) - start
    return {"images_per_s": stage.steps * stage.batch_size / seconds, "data_share": waited / seconds}


def _rate(stage: Stage, batches: Iterable[Any]) -> Figures:
    """Images a second of an endless source of batches."""
    source, start = iter(batches), 0.0
    for _ in islice(source, stage.warm_up):
        start = wait(torch.device("cpu"))
    for _ in islice(source, stage.steps):
        pass
    return {"images_per_s": stage.steps * stage.batch_size / (wait(torch.device("cpu")) - start)}


def _loader(stage: Stage) -> Figures:
    reader = open_reader(stage.data)
    side = decode(reader[0][0]).shape[0]
    loader = TrainLoader(
        reader, batch_size=stage.batch_size, seed=0, workers=stage.workers, size=side, resize=True
    )
    augment = Augment(AugmentConfig())
    epochs = (batch for epoch in range(10**6) for batch in loader.epoch(epoch))
    return _rate(stage, (augment(batch.images[0], batch.random[0]) for batch in epochs))


def _plain_loading(stage: Stage) -> Figures:
    return _rate(stage, forever(plain_loader(open_reader(stage.data), stage.batch_size, stage.workers)))


def _decoding(stage: Stage) -> Figures:
    """Read and decode on one thread, nothing else."""

    def batches(reader: Reader) -> Iterable[None]:
        number = 0
        while True:
            for _ in range(stage.batch_size):
                decode(reader[number % len(reader)][0])
                number += 1
            yield

    return _rate(stage, batches(open_reader(stage.data)))


def _network(stage: Stage) -> nn.Module:
    return backbones.build(stage.backbone).eval()


def _images(stage: Stage, net: nn.Module) -> torch.Tensor:
    side = int(net.input_size)  # type: ignore[arg-type]
    return torch.randint(0, 256, (stage.batch_size, side, side, 3), dtype=torch.uint8)


def _embedding(stage: Stage, embed: Callable[[], object]) -> Figures:
    device = torch.device(stage.device)
    for _ in range(stage.warm_up):
        embed()
    start = wait(device)
    for _ in range(stage.steps):
        embed()
    return {"images_per_s": stage.steps * stage.batch_size / (wait(device) - start)}


def _evaluate(stage: Stage) -> Figures:
    net, device = _network(stage), torch.device(stage.device)
    net = net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    contract = Contract(size=int(net.input_size), flip=False)
    card = Card(contract, {"name": stage.backbone, "embedding_size": net.embedding_size, "options": {}})
    model = Model(TorchEncoder(net, contract, device, "fp32"), card)
    images = _images(stage, net).numpy()
    return _embedding(stage, lambda: model.embed(images, batch_size=stage.batch_size))


def _plain_embedding(stage: Stage) -> Figures:
    net, device = plain_layers(_network(stage)), torch.device(stage.device)
    net, images = net.to(device), _images(stage, net)

    def embed() -> object:
        with torch.no_grad():
            x = images.to(device).permute(0, 3, 1, 2).float().div(255).sub(0.5).div(0.5)
            return nn.functional.normalize(net(x)).cpu()

    return _embedding(stage, embed)


_MEASURES: Mapping[tuple[str, str], Callable[[Stage], Figures]] = {
    ("train", "ours"): _train,
    ("train", "plain"): _plain_train,
    ("loader", "ours"): _loader,
    ("loader", "plain"): _plain_loading,
    ("loader", "decode"): _decoding,
    ("evaluate", "ours"): _evaluate,
    ("evaluate", "plain"): _plain_embedding,
}


if __name__ == "__main__":  # bench.run starts a process for each stage
    print(json.dumps(measure_stage(Stage(**json.loads(sys.argv[1])))))
