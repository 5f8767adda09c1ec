"""The options of class centres, and how heads take them."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from facescale import heads
from facescale.centres.options import StoreOptions

KEEPERS = ["full", "partial_fc"]


@pytest.mark.parametrize("name", KEEPERS)
def test_every_option_is_a_documented_keyword_of_the_heads_with_type_and_default(name: str) -> None:
    head = heads.HEADS[name]
    parameters = inspect.signature(head).parameters
    assert {"products", "chunk", "compat", "seed"} < set(parameters)
    for field in fields(StoreOptions):
        parameter = parameters[field.name]
        assert parameter.kind is parameter.KEYWORD_ONLY
        assert (parameter.annotation, parameter.default) == (field.type, field.default)
        assert head.__doc__ is not None and f"\n    {field.name}: " in head.__doc__
    assert "**store" not in (head.__doc__ or "") and "store" not in parameters


@pytest.mark.parametrize("name", KEEPERS)
def test_options_reach_the_store_of_the_head(name: str, tmp_path: Path) -> None:
    given: dict[str, Any] = {
        "nesterov": True,
        "momentum": 0.5,
        "weight_decay": 0.25,
        "store_dtype": "float16",
    }
    head = heads.build(name, 9, 4, placement="disk", directory=tmp_path, **given)
    rule = head.store.rule
    assert (rule.nesterov, rule.momentum, rule.coupled_decay) == (True, 0.5, 0.25)
    assert (head.store.placement, str(head.store.fields[0].dtype)) == ("disk", "torch.float16")
    assert (tmp_path / "process_0").is_dir()


def test_options_of_the_store_are_refused_where_there_is_none() -> None:
    with pytest.raises(ValueError, match="head 'attfc' has no option 'placement'"):
        heads.build("attfc", 9, 4, placement="host")


def test_mistakes_are_told() -> None:
    for options, words in (
        ({"optimizer": "lion"}, "optimizer of the class centres is 'lion'; choose one of: sgd, adamw"),
        (
            {"placement": "tape"},
            "placement of the class centres is 'tape'; choose one of: device, host, disk",
        ),
        ({"store_dtype": "int8"}, "store_dtype of the class centres is 'int8'; choose one of: float32, bfl"),
        ({"weight_decay": -1.0}, "weight_decay of the class centres is -1.0; it must be 0 or more"),
        ({"placement": "disk"}, "placement is 'disk' and directory is None; placement 'disk' needs"),
        ({"directory": "x"}, "placement is 'device' and directory is x; placement 'disk' needs"),
    ):
        with pytest.raises(ValueError, match=words):
            StoreOptions(**options)  # type: ignore[arg-type]
