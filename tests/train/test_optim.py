import json
from pathlib import Path

import pytest
import torch
from torch import nn

from facescale.backbones import build
from facescale.config import OptimConfig
from facescale.train.optim import Schedule, make_optimizer, make_schedule, parameter_groups


def test_warm_up_rises_and_polynomial_falls_to_zero() -> None:
    schedule = Schedule(base=1.0, total=10, warmup=4)
    assert [schedule(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    assert schedule(4) == 1.0 and schedule(7) == pytest.approx(0.5) and schedule(10) == 0


def test_cosine_is_half_way_down_in_the_middle() -> None:
    assert Schedule(base=2.0, total=10, kind="cosine")(5) == pytest.approx(1.0)


def test_multistep_drops_at_its_milestones_by_the_factor_of_each() -> None:
    schedule = Schedule(base=1.0, total=30, kind="multistep", milestones=(10, 20), gammas=(0.5, 0.1))
    assert [schedule(step) for step in (9, 10, 19, 20)] == [1.0, 0.5, 0.5, 0.05]


@pytest.mark.parametrize(("gammas", "rates"), [([0.5], (1.0, 0.5, 0.25)), ([0.5, 0.1], (1.0, 0.5, 0.05))])
def test_a_config_gives_one_factor_for_all_milestones_or_one_each(
    gammas: list[float], rates: tuple[float, ...]
) -> None:
    config = OptimConfig(lr=1.0, schedule="multistep", milestones=["1 epoch", "20 steps"], gammas=gammas)
    schedule = make_schedule(config, config.reference_batch, 10, 30)
    assert [schedule(step) for step in (9, 10, 20)] == pytest.approx(rates)


@pytest.mark.parametrize(("kind", "first"), [("polynomial", 1.0), ("cosine", 1.0), ("multistep", 0.0)])
def test_a_released_warm_up_starts_at_zero_under_multistep_and_at_full_rate_else(
    kind: str, first: float
) -> None:
    schedule = Schedule(base=1.0, total=10, warmup=4, kind=kind, compat=True)
    assert [schedule(step) for step in range(4)] == [first, 0.25, 0.5, 0.75]


def test_the_rate_scales_with_the_total_batch() -> None:
    schedule = make_schedule(OptimConfig(lr=0.1, reference_batch=512, warmup="10%"), 128, 100, 1000)
    assert schedule.base == pytest.approx(0.025) and schedule.warmup == 100


def test_only_weights_of_products_decay() -> None:
    net = build("mbf_s", 16)
    decayed, free = parameter_groups(net, 5e-4, compat=False)
    assert decayed["weight_decay"] == 5e-4 and free["weight_decay"] == 0
    assert all(p.ndim >= 2 for p in decayed["params"])
    trainable = sum(p.requires_grad for p in net.parameters())
    assert len(decayed["params"]) + len(free["params"]) == trainable
    (everything,) = parameter_groups(net, 5e-4, compat=True)
    assert len(everything["params"]) == trainable


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimizers_take_a_step(name: str) -> None:
    layer = nn.Linear(2, 2)
    optimizer = make_optimizer(OptimConfig(name=name), layer)
    layer(torch.ones(1, 2)).sum().backward()
    before = layer.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, layer.weight)


def test_polynomial_warm_up_equals_the_release(golden: Path) -> None:
    for case in json.loads((golden / "F_lr_schedule.json").read_text())["polynomial_warmup"]:
        for group, base in enumerate(case["base_lrs"]):
            schedule = Schedule(
                base, case["total_iters"], case["warmup_iters"], power=case["power"], compat=True
            )
            for step, rates in enumerate(case["lr_after_n_scheduler_steps"]):
                assert schedule(step) == pytest.approx(rates[group], rel=1e-9, abs=1e-12)


def test_cosine_equals_the_release(golden: Path) -> None:
    case = json.loads((golden / "F_lr_schedule.json").read_text())["attfc_cosine"]
    schedule = Schedule(case["base_lr"], case["T_max"], kind="cosine")
    for step, rate in enumerate(case["lr_after_n_scheduler_steps"][: case["T_max"] + 1]):
        assert schedule(step) == pytest.approx(rate, rel=1e-9, abs=1e-12)


def test_multistep_equals_the_release(golden: Path) -> None:
    case = json.loads((golden / "F_lr_schedule.json").read_text())["ffc_multistep"]
    released, per_epoch = case["config"], 4
    config = OptimConfig(
        lr=released["LR"],
        schedule="multistep",
        warmup=f"{released['warmup']} epochs",
        milestones=[f"{epoch + released['warmup']} epochs" for epoch in released["milestones"]],
        gammas=released["gammas"],
        compat=True,
    )
    schedule = make_schedule(config, config.reference_batch, per_epoch, released["epochs"] * per_epoch)
    assert len(case["epoch_fraction_lr"]) == released["epochs"] * per_epoch
    for epoch, fraction, rate in case["epoch_fraction_lr"]:
        assert schedule(round((epoch + fraction) * per_epoch)) == pytest.approx(rate, rel=1e-9)
