"""The recipes of the package: what each trains on, what was published for it, what it needs."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from facescale.config import Config
from facescale.config.packaged import read_tables, recipe_names
from facescale.distributed import Dist
from facescale.plan.advice import candidate
from facescale.plan.check import read_config
from facescale.plan.memory import backbone_bytes
from facescale.plan.plan import Counts, make_plan
from facescale.plan.units import amount
from facescale.registry import nearest


@dataclass(frozen=True)
class Recipe:
    """A config of the package and what is known of it.

    Attributes:
        name: for ``facescale train NAME``.
        title: network, loss and data in one line.
        config: all its values.
        source: where they come from.
        published: figures published for it, in per cent.
        hardware: that these were measured on.
        processes: that it is meant for.
        data: name of the data set.
        ids: its identities.
        images: its images.
        note: anything else, or empty.
    """

    name: str
    title: str
    config: Config
    source: str
    published: str
    hardware: str
    processes: int
    data: str
    ids: int
    images: int
    note: str = ""

    @property
    def command(self) -> str:
        """What trains it."""
        train = f"facescale train {self.name} --run runs/{self.name}"
        if self.processes > 8:
            return f"torchrun --nnodes {self.processes // 8} --nproc-per-node 8 -m -- {train}"
        return f"{train} --processes {self.processes}" if self.processes > 1 else train

    @cached_property
    def device_bytes(self) -> int:
        """Memory on each device in bytes, planned for GPUs in bf16 and ``processes`` of them."""
        dist = Dist(0, self.processes, torch.device("cuda"))
        train = self.config.train.model_copy(update={"precision": "bf16"})
        config = self.config.model_copy(update={"train": train})
        plan = make_plan(config, dist, Counts(self.ids, self.images))
        return candidate(config, plan, backbone_bytes(config, plan), memory=None).total

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "name": self.name,
            "ids": f"{self.ids:,}",
            "GPUs": self.processes,
            "published": self.published,
        }


def read_recipe(name: str) -> Recipe:
    """A recipe of the package.

    Raises:
        ValueError: there is none of this name.
    """
    if name not in recipe_names():
        raise ValueError(f"there is no recipe '{name}'{nearest(name, recipe_names())}; see facescale recipes")
    return Recipe(name=name, config=read_config(name), **read_tables(name)["recipe"])


def all_recipes() -> list[Recipe]:
    """All recipes of the package, by name."""
    return [read_recipe(name) for name in recipe_names()]


def describe(recipe: Recipe) -> str:
    """A recipe as TOML, under a header with its command, published figures and planned memory."""
    lines = [
        recipe.title,
        f"  {recipe.command}",
        f"Data: {recipe.data}, {recipe.ids:,} identities, {recipe.images:,} images.",
        f"Published, in per cent: {recipe.published}.",
        f"Measured on: {recipe.hardware}. Source: {recipe.source}.",
        f"Planned memory on each of {recipe.processes} devices in bf16: {amount(recipe.device_bytes)}.",
        *([f"Note: {recipe.note}."] if recipe.note else []),
    ]
    return "".join(f"# {line}\n" for line in lines) + "\n" + recipe.config.to_toml()
