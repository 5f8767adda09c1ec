"""Extend a trained model with new people, and say what it forgot."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from facescale.config import Config
from facescale.data.spec import split_name
from facescale.distributed import Dist
from facescale.inference.load import load
from facescale.inference.model import Model
from facescale.model_card import Card
from facescale.plan.check import read_config
from facescale.run import RunDir
from facescale.train import Result, train
from facescale.train.run_log import OnLog
from facescale.train.session import open_sets

# The rest of a config describes the old training, whose length, rate and start do not fit this one.
_RATE = 0.1  # of the old learning rate
_DURATION = "10 epochs"


@dataclass(frozen=True)
class Finetuned:
    """What a fine-tuning did.

    Attributes:
        result: of the training.
        before: figures of the old model, NAME/METRIC -> value.
        after: of the new one.
    """

    result: Result
    before: Mapping[str, float]
    after: Mapping[str, float]


def finetune_config(
    model: str | Path,
    data: str,
    head: str = "extend",
    distil: float = 1.0,
    sets: Sequence[str] = (),
    settings: Sequence[str] = (),
    adapters: int = 0,
) -> Config:
    """The config of a run that goes on from ``model`` with ``data``.

    Args:
        model: a run, whose config is the base, or weights.
        data: new images, as for ``data.train``.
        head: "extend", "keep" or "replace".
        distil: weight of staying near the old embeddings.
        sets: protocols ``NAME=PATH`` to watch, beside those of the run.
        settings: as after ``--set``; they win.
        adapters: rank of low-rank adapters, all else of the network frozen; 0: all of it trains.

    Raises:
        ValueError: no such model, or settings that do not fit.
    """
    run = RunDir(model)
    base = run.config if run.config.is_file() else None
    card = load(model, device="cpu").card
    first = [] if base else _backbone(card)
    rate = read_config(base, first).optim.lr * (1.0 if adapters else _RATE)
    told = [f"train.init={json.dumps(str(model))}", f"data.train={json.dumps(data)}"]
    told += [f"train.duration={json.dumps(_DURATION)}", f"optim.lr={rate!r}"]
    told += [f"finetune.head={head}", "finetune.new_centres=mean", "finetune.statistics=keep"]
    told += [f"finetune.distil={float(distil)!r}", f"finetune.adapters={adapters}"]
    told += ['finetune.teacher=""', "finetune.mix=0.0"]  # those of the old run, if it was fine-tuned, too
    for text in sets:
        name, path = split_name(text)
        told.append(f"eval.sets.{name or 'new'}={json.dumps(path)}")
    return read_config(base, [*first, *told, *settings])


def _backbone(card: Card) -> list[str]:
    if card.backbone is None:
        raise ValueError("this model is a graph without a backbone; fine-tune the run or its .safetensors")
    spec = card.backbone
    settings = [f"backbone.name={spec['name']}", f"backbone.embedding_size={spec['embedding_size']}"]
    settings += [f"backbone.{key}={json.dumps(value)}" for key, value in spec["options"].items()]
    return [*settings, f"data.resize={json.dumps(card.contract.resize == 'area')}"]


def finetune(
    config: Config, run: str | Path, dist: Dist | None = None, on_log: OnLog | None = None
) -> Finetuned:
    """Train, and measure the old and the new model on the config's evaluation sets.

    Args:
        config: see ``finetune_config``.
        run: folder of the new run.
        dist: this process among its peers; None: it is alone.
        on_log: see ``facescale.train.train``.

    Raises:
        ValueError: config, data and run folder do not fit.
    """
    dist = dist or Dist()
    before: dict[str, float] = {}
    if dist.is_main:
        before = _figures(load(config.train.init, str(dist.device)), config)
    dist.barrier()
    result = train(config, run, dist, on_log)
    after = _figures(load(run, str(dist.device)), config) if dist.is_main and result.finished else {}
    return Finetuned(result, before, after)


def _figures(model: Model, config: Config) -> dict[str, float]:
    found: dict[str, Any] = {}
    for protocol in open_sets(config.eval, model.contract.size, model.needs_flip):
        figures = protocol.measure(model.encoder).figures()
        found |= {f"{protocol.name}/{key}": value for key, value in figures}
    return found
