"""The examples in docstrings of heads and margins run, and every one of them has one."""

import doctest
import importlib

import pytest
import torch

import facescale
import facescale.backbones
import facescale.heads
import facescale.margins

MODULES = sorted(
    {
        factory.__module__
        for table in (facescale.heads.HEADS, facescale.margins.MARGINS)
        for factory in table.values()
    }
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    torch.manual_seed(0)
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"facescale": facescale, "torch": torch})
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.parametrize("factory", [*facescale.heads.HEADS.values(), *facescale.margins.MARGINS.values()])
def test_every_head_and_margin_has_an_example_of_its_own(factory: type) -> None:
    assert ">>> " in (vars(factory)["__doc__"] or "")
