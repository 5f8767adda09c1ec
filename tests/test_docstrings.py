"""The examples in docstrings of heads, margins and backbones run, and every one of them has one."""

import doctest
import importlib
from functools import partial
from typing import Any

import pytest
import torch

import facescale
import facescale.backbones
import facescale.heads
import facescale.margins


def documented(factory: Any) -> Any:
    return factory.func if isinstance(factory, partial) else factory


TABLES = (facescale.heads.HEADS, facescale.margins.MARGINS, facescale.backbones.BACKBONES)
FACTORIES = list(dict.fromkeys(documented(factory) for table in TABLES for factory in table.values()))
MODULES = sorted({factory.__module__ for factory in FACTORIES})


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_say(name: str) -> None:
    torch.manual_seed(0)
    module = importlib.import_module(name)
    found = doctest.testmod(module, extraglobs={"facescale": facescale, "torch": torch})
    assert found.attempted > 0 and found.failed == 0


@pytest.mark.parametrize("factory", FACTORIES)
def test_every_component_has_an_example_of_its_own(factory: Any) -> None:
    assert ">>> " in (vars(factory).get("__doc__") or factory.__doc__ or "")
