"""Formulas of the margins that read quality from embedding norms, written out by hand."""

import math

import pytest
import torch

from facescale import margins

ONE = torch.tensor([0])


def row(*cosines: float) -> torch.Tensor:
    return torch.tensor([cosines], dtype=torch.float64)


def test_magface_has_a_margin_that_grows_with_the_norm() -> None:
    margin = margins.build("magface", la=10, ua=110, lm=0.45, um=0.8).double()
    for norm, m in ((60.0, 0.625), (1.0, 0.45), (500.0, 0.8)):
        out = margin(row(0.5, 0.2), ONE, torch.tensor([norm], dtype=torch.float64))[0] / 64
        assert out.tolist() == pytest.approx([math.cos(math.acos(0.5) + m), 0.2])


def test_magface_with_an_easy_margin_leaves_far_samples_alone() -> None:
    norm = torch.tensor([60.0], dtype=torch.float64)
    assert margins.build("magface").double()(row(-0.3, 0.2), ONE, norm)[0, 0].item() / 64 == pytest.approx(
        -0.3
    )
    strict = margins.build("magface", easy_margin=False).double()(row(-0.3, 0.2), ONE, norm)[0, 0].item() / 64
    assert strict == pytest.approx(math.cos(math.acos(-0.3) + 0.625))


def test_magface_sends_a_gradient_to_the_norm_and_pulls_it_up() -> None:
    margin = margins.build("magface", lambda_g=35.0).double()
    norm = torch.tensor([60.0, 200.0], dtype=torch.float64, requires_grad=True)
    penalty = margin.penalty(norm)
    assert penalty.item() == pytest.approx(35 * (60 / 110**2 + 1 / 60 + 110 / 110**2 + 1 / 110) / 2)
    penalty.backward()
    assert norm.grad.tolist() == pytest.approx([35 / 2 * (1 / 110**2 - 1 / 60**2), 0.0])
    norm.grad = None
    margin(row(0.5, 0.2).repeat(2, 1), ONE.repeat(2), norm)[:, 0].sum().backward()
    slope = -64 * math.sin(math.acos(0.5) + 0.625) * 0.35 / 100
    assert norm.grad.tolist() == pytest.approx([slope, 0.0])


@pytest.mark.parametrize("compat", [False, True])
def test_adaface_moves_its_margin_with_the_quality_of_the_image(compat: bool) -> None:
    margin = margins.build("adaface", m=0.4, h=0.333, t_alpha=0.1, compat=compat).double()
    norms = torch.tensor([10.0, 30.0, 55.0], dtype=torch.float64)
    cos, target = torch.tensor([[0.5, 0.2]] * 3, dtype=torch.float64), torch.zeros(3, dtype=torch.long)
    out = margin(cos, target, norms)[:, 0] / 64
    mean = 0.1 * norms.mean().item() + 0.9 * 20
    std = 0.1 * norms.std().item() + 0.9 * 100
    assert (margin.batch_mean.item(), margin.batch_std.item()) == pytest.approx((mean, std))
    z = [min(1, max(-1, 0.333 * (n - mean) / (std + 0.001))) for n in norms.tolist()]
    assert out.tolist() == pytest.approx([math.cos(math.acos(0.5) - 0.4 * q) - (0.4 + 0.4 * q) for q in z])


def test_adaface_stays_in_use_for_a_batch_of_one() -> None:
    margin = margins.build("adaface")
    margin(torch.tensor([[0.5, 0.2]]), ONE, torch.tensor([30.0]))
    assert margin.batch_std.item() == 100.0


def test_adaface_under_compat_stops_gradients_at_the_poles() -> None:
    for compat, slope in ((True, 0.0), (False, 64.0)):
        x = torch.tensor([[0.5, 0.9999]], requires_grad=True)
        margins.build("adaface", compat=compat)(x, ONE, torch.tensor([30.0]))[0, 1].backward()
        assert x.grad[0, 1].item() == slope


@pytest.mark.parametrize("name", ["magface", "adaface"])
def test_missing_norms_are_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"margin {name} reads quality from embedding norms and got none"):
        margins.build(name)(torch.zeros(1, 2), ONE)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("magface", {"la": 20, "ua": 10}, "magface norms are la=20, ua=10; needs 0 < la < ua"),
        ("adaface", {"t_alpha": 0}, "t_alpha is 0; it is the weight of the newest batch"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        margins.build(name, **options)
