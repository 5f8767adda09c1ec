"""Check the components of a config, and build a head without its rows."""

from functools import partial
from pathlib import Path
from typing import Any

import torch

from facescale import backbones, heads, margins, registry
from facescale.config import Config
from facescale.distributed import Dist
from facescale.heads import ClassHead
from facescale.margins import Margin


def check_components(config: Config) -> None:
    """Name everything that is wrong with the components of a config.

    Raises:
        ValueError: unknown components or options, one line each.
    """
    problems: list[str] = []
    for kind, factory_of, part in (
        ("backbone", backbones.factory, config.backbone),
        ("head", partial(registry.lookup, "head", heads.HEADS), config.head),
        ("margin", partial(registry.lookup, "margin", margins.MARGINS), config.head.margin),
    ):
        try:
            factory = factory_of(part.name)
            problems += registry.option_problems(kind, part.name, factory, part.options)
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join(problems))


def head_options(config: Config, centres: Path) -> dict[str, Any]:
    """The head's own options, and for a head that moves its centres itself the optimizer's values."""
    optim = config.optim
    offered: dict[str, Any] = {
        "optimizer": optim.name,
        "momentum": optim.momentum,
        "nesterov": optim.nesterov,
        "betas": optim.betas,
        "weight_decay": optim.weight_decay,
        "seed": config.train.seed,
    }
    if config.head.options.get("placement") == "disk":
        offered["directory"] = centres
    accepted = registry.option_names(registry.lookup("head", heads.HEADS, config.head.name))
    return {key: value for key, value in offered.items() if key in accepted} | config.head.options


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
