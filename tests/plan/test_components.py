from dataclasses import fields
from pathlib import Path

import pytest
import torch

from facescale import heads
from facescale.config import load_config
from facescale.distributed import Dist
from facescale.heads import HEADS
from facescale.plan.components import Offered, build_head, head_options
from facescale.registry import options_of


def test_a_head_gets_the_optimizer_of_the_backbone_and_its_own_options_go_before() -> None:
    settings = ["optim.name=adamw", "optim.weight_decay=0.1", "train.seed=3", "head.seed=5", "head.chunk=7"]
    options = head_options(load_config(None, settings), Path("centres"))
    assert options["optimizer"] == "adamw" and options["weight_decay"] == 0.1
    assert (options["seed"], options["chunk"]) == (5, 7)
    assert options.get("directory") is None


def test_every_value_of_the_optimizer_reaches_a_head_that_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def head(*, optimizer: str, momentum: float, nesterov: bool, betas: tuple[float, float]) -> None:
        """Takes what an optimizer has."""

    monkeypatch.setitem(heads.HEADS, "taking", head)
    settings = ["head.name=taking", "optim.momentum=0.8", "optim.nesterov=true", "optim.betas=[0.5, 0.6]"]
    assert head_options(load_config(None, settings), Path()) == {
        "optimizer": "sgd",
        "momentum": 0.8,
        "nesterov": True,
        "betas": (0.5, 0.6),
    }


def test_class_centres_on_disk_get_the_folder_of_the_run() -> None:
    options = head_options(load_config(None, ["head.placement=disk"]), Path("centres"))
    assert options["directory"] == Path("centres")


def test_a_head_gets_nothing_that_it_does_not_take() -> None:
    for name in HEADS:
        config = load_config(None, [f"head.name={name}"])
        assert head_options(config, Path()).keys() <= options_of(HEADS[name]).keys()


def test_what_is_offered_is_taken_by_some_head_and_comes_from_a_key_of_the_config() -> None:
    taken = {option for head in HEADS.values() for option in options_of(head)}
    config = load_config()
    for field in fields(Offered):
        section, _, key = field.metadata["key"].partition(".")
        assert field.name == "directory" or hasattr(getattr(config, section), key)
    assert {"optimizer", "momentum", "weight_decay", "seed", "directory"} <= taken


def test_a_head_is_built_with_its_margin_and_width() -> None:
    config = load_config(
        None, ["backbone.embedding_size=16", "head.margin.name=arcface", "head.margin.m=0.3"]
    )
    with torch.device("meta"):
        head = build_head(config, 20, Dist(), Path())
    assert (head.num_ids, head.embedding_size, head.margin.m2) == (20, 16, 0.3)
