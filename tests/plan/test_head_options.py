"""What the optimizer of a config says reaches the class centres."""

from pathlib import Path

import pytest

from facescale import heads
from facescale.centres.row_optim import RowAdamW, RowSGD
from facescale.config import load_config
from facescale.heads.centre_head import CentreHead
from facescale.plan.components import head_options


def head(*settings: str) -> CentreHead:
    config = load_config(None, settings)
    made = heads.build(config.head.name, 9, 4, **head_options(config, Path("unused")))
    assert isinstance(made, CentreHead)
    return made


@pytest.mark.parametrize("name", ["full", "partial_fc"])
def test_class_centres_are_optimized_as_the_config_says(name: str) -> None:
    rule = head(
        f"head.name={name}", "optim.momentum=0.7", "optim.nesterov=true", "optim.weight_decay=0.01"
    ).store.rule
    assert isinstance(rule, RowSGD)
    assert (rule.momentum, rule.nesterov, rule.coupled_decay) == (0.7, True, 0.01)
    rule = head(f"head.name={name}", "optim.name=adamw", "optim.betas=[0.5,0.6]").store.rule
    assert isinstance(rule, RowAdamW)
    assert tuple(rule.betas) == (0.5, 0.6)
