"""The components that a config names: their factories and options; a head without its rows."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from facescale import heads, margins, registry
from facescale.backbones.low_rank import add_adapters
from facescale.backbones.profile import skeleton
from facescale.config import Config
from facescale.distributed import Dist
from facescale.heads import ClassHead
from facescale.margins import Margin


@dataclass(frozen=True)
class Offered:
    """What a run offers to its head: the value of each parameter of that name that [head] leaves open.

    A head that moves its class centres itself thus does it as the backbone's optimizer would.

    Attributes:
        optimizer: "sgd" or "adamw".
        momentum: of sgd.
        nesterov: of sgd.
        betas: of adamw.
        weight_decay: of either.
        seed: of the training.
        directory: folder for class centres on disk; None for another placement.

    The metadata of a field say which key of the config it comes from.
    """

    optimizer: Literal["sgd", "adamw"] = field(metadata={"key": "optim.name"})
    momentum: float = field(metadata={"key": "optim.momentum"})
    nesterov: bool = field(metadata={"key": "optim.nesterov"})
    betas: tuple[float, float] = field(metadata={"key": "optim.betas"})
    weight_decay: float = field(metadata={"key": "optim.weight_decay"})
    seed: int = field(metadata={"key": "train.seed"})
    directory: Path | None = field(metadata={"key": "the run folder"})


def head_options(config: Config, directory: Path) -> dict[str, Any]:
    """Options of the config's head, completed by what the run offers (see ``Offered``).

    Args:
        config: of the run.
        directory: where class centres on disk go.
    """
    options, optim = config.head.options, config.optim
    offered = Offered(
        optimizer=optim.name,
        momentum=optim.momentum,
        nesterov=optim.nesterov,
        betas=optim.betas,
        weight_decay=optim.weight_decay,
        seed=config.train.seed,
        directory=directory if options.get("placement") == "disk" else None,
    )
    accepted = registry.options_of(registry.lookup("head", heads.HEADS, config.head.name))
    return {name: value for name, value in asdict(offered).items() if name in accepted} | options


def build_head(config: Config, num_ids: int, dist: Dist, directory: Path) -> ClassHead:
    """The head of a config with its margin; under ``torch.device("meta")`` without rows or files.

    Args:
        config: of the run.
        num_ids: number of identities.
        dist: this process among its peers.
        directory: where class centres on disk go.

    Raises:
        ValueError: as ``heads.build`` and ``margins.build``.
    """
    margin = margins.build(config.head.margin.name, **config.head.margin.options)
    size, options = config.backbone.embedding_size, head_options(config, directory)
    return heads.build(config.head.name, num_ids, size, margin, dist, **options)


def backbone_skeleton(config: Config) -> nn.Module:
    """The backbone of a config with its adapters, without memory or values.

    Raises:
        ValueError: as ``backbones.build`` and ``add_adapters``.
    """
    spec, finetune = config.backbone, config.finetune
    net = skeleton(spec.name, spec.embedding_size, **spec.options)
    if finetune.adapters:
        add_adapters(net, finetune.adapters, finetune.adapted)
    return net


def head_skeleton(
    name: str, num_ids: int, embedding_size: int, margin: str | Margin, dist: Dist, **options: Any
) -> ClassHead:
    """A head without rows, files or memory on the device, to ask what it needs (``bytes_needed``).

    Raises:
        ValueError: as ``heads.build``.
    """
    built = margins.build(margin) if isinstance(margin, str) else margin
    with torch.device("meta"):
        return heads.build(name, num_ids, embedding_size, built, dist, **options)
