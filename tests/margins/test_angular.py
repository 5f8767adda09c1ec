"""Formulas of the margins on the target angle, written out by hand."""

import math

import pytest
import torch
from torch import Tensor

from facescale import heads, margins
from facescale.margins.angles import angle_added, angle_multiplied


def target_value(name: str, cos: float, **options: object) -> float:
    """Target-class value before the scale, of one sample at cosine ``cos``."""
    margin = margins.build(name, scale=1.0, **options).double()
    return margin(torch.tensor([[cos, 0.1]], dtype=torch.float64), torch.tensor([0]))[0, 0].item()


def target_slope(name: str, cos: float, **options: object) -> float:
    """d value / d cos of the same."""
    margin = margins.build(name, scale=1.0, **options).double()
    x = torch.tensor([[cos, 0.1]], dtype=torch.float64, requires_grad=True)
    margin(x, torch.tensor([0]))[0, 0].backward()
    return x.grad[0, 0].item()


@pytest.mark.parametrize("theta", [0.2, 1.0, 2.0, 2.6])
def test_arcface_is_the_cosine_of_the_angle_plus_m(theta: float) -> None:
    assert target_value("arcface", math.cos(theta), m=0.5) == pytest.approx(math.cos(theta + 0.5))
    assert target_slope("arcface", math.cos(theta), m=0.5) == pytest.approx(
        math.sin(theta + 0.5) / math.sin(theta)
    )


def test_arcface_falls_back_to_a_shifted_cosine_beyond_pi() -> None:
    c = math.cos(2.9)
    assert target_value("arcface", c, m=0.5) == pytest.approx(c - 0.5 * math.sin(0.5))
    assert target_slope("arcface", c, m=0.5) == pytest.approx(1.0)
    assert target_value("arcface", c, m=0.5, fallback=False) == pytest.approx(math.cos(3.4))


def test_arcface_under_compat_has_the_released_value_with_the_slope_of_the_cosine() -> None:
    for theta in (0.3, 2.9):
        assert target_value("arcface", math.cos(theta), m=0.5, compat=True) == pytest.approx(
            math.cos(theta + 0.5)
        )
        assert target_slope("arcface", math.cos(theta), m=0.5, compat=True) == 1.0


def test_cosface_subtracts_m() -> None:
    assert target_value("cosface", 0.3, m=0.35) == pytest.approx(-0.05)


def test_combined_puts_the_three_margins_together() -> None:
    theta = 0.7
    value = target_value("combined", math.cos(theta), m1=1.2, m2=0.3, m3=0.1)
    assert value == pytest.approx(math.cos(1.2 * theta + 0.3) - 0.1)


def test_combined_under_compat_ignores_the_angles_when_m3_is_set() -> None:
    assert target_value("combined", 0.6, m1=1.2, m2=0.3, m3=0.1, compat=True) == pytest.approx(0.5)


def psi(theta: float, m: float) -> float:
    k = math.floor(m * theta / math.pi)
    return (-1) ** k * math.cos(m * theta) - 2 * k


@pytest.mark.parametrize("m", [1.5, 1.7, 4.0])
@pytest.mark.parametrize("theta", [0.1, 0.9, 1.7, 2.5, 3.1])
def test_sphereface_is_psi_of_the_angle(m: float, theta: float) -> None:
    assert target_value("sphereface", math.cos(theta), m=m) == pytest.approx(psi(theta, m), abs=1e-5)
    k = math.floor(m * theta / math.pi)
    slope = (-1) ** k * m * math.sin(m * theta) / math.sin(theta)
    assert target_slope("sphereface", math.cos(theta), m=m) == pytest.approx(slope, rel=1e-4)
    assert target_value("sphereface", math.cos(theta), m=m, compat=True) == pytest.approx(
        psi(theta, m), abs=1e-5
    )
    assert target_slope("sphereface", math.cos(theta), m=m, compat=True) == pytest.approx(1.0)


def falls(values: Tensor) -> bool:
    return bool((values.diff() <= 1e-12).all())


def test_angle_functions_fall_with_the_angle_all_the_way() -> None:
    cos = torch.linspace(0, math.pi, 2001, dtype=torch.float64).cos()
    for m in (0.0, 0.3, 0.5, 1.2, -0.4):
        assert falls(angle_added(cos, m)), m
    for factor in (1.0, 1.7, 2.0, 4.0):
        assert falls(angle_multiplied(cos, factor, 0.2)), factor


def test_a_negative_angle_margin_is_one_near_the_centre_and_a_cosine_elsewhere() -> None:
    cos = torch.tensor([math.cos(0.1), math.cos(1.0), math.cos(3.1), -1.0], dtype=torch.float64)
    expected = torch.tensor([1.0, math.cos(0.6), math.cos(2.7), math.cos(math.pi - 0.4)], dtype=torch.float64)
    torch.testing.assert_close(angle_added(cos, -0.4), expected, rtol=0, atol=1e-3)


def test_subcentre_arcface_asks_for_rows_and_is_arcface_on_their_best() -> None:
    margin = margins.build("subcenter_arcface")
    assert margin.subcentres == 3
    assert target_value("subcenter_arcface", 0.4, m=0.3) == target_value("arcface", 0.4, m=0.3)


def test_circle_weighs_each_cosine_by_its_distance_from_the_optimum() -> None:
    c, n, m = 0.6, 0.1, 0.25
    margin = margins.build("circle", m=m, scale=256.0).double()
    x = torch.tensor([[c, n, -0.5]], dtype=torch.float64, requires_grad=True)
    out = margin(x, torch.tensor([0]))[0]
    assert out[0].item() == pytest.approx(256 * (1 + m - c) * (c - (1 - m)))
    assert out[1].item() == pytest.approx(256 * (n + m) * (n - m))
    assert out[2].item() == 0.0  # below -m a stranger is far enough
    out.sum().backward()
    torch.testing.assert_close(x.grad[0] / 256, torch.tensor([1 + m - c, n + m, 0.0], dtype=torch.float64))


def test_label_noise_among_negatives_leaves_the_softmax_or_becomes_cosine_zero() -> None:
    x, y = torch.tensor([[0.9, 0.5, 0.1]]), torch.tensor([0])
    out = margins.build("cosface", scale=2.0, m=0.2, interclass_filter=0.4)(x, y)
    torch.testing.assert_close(out, torch.tensor([[1.4, -math.inf, 0.2]]))
    out = margins.build("cosface", scale=2.0, m=0.2, interclass_filter=0.4, compat=True)(x, y)
    torch.testing.assert_close(out, torch.tensor([[1.4, 0.0, 0.2]]))
    out = margins.build("uniface", scale=2.0, m=0.2, interclass_filter=0.4)(x, y)
    assert out[0, 1] == 0.0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("combined", {"m1": 0.5}, "combined margin got m1=0.5.*needs m1 >= 1"),
        ("combined", {"m1": 1.2, "compat": True}, "know m1=1 only, got m1=1.2"),
        ("combined", {"m1": 1.2, "fallback": False}, "know m1=1 only, got m1=1.2"),
        ("sphereface", {"m": 0.5}, "sphereface margin m is 0.5; it multiplies the angle"),
        ("subcenter_arcface", {"subcentres": 1}, "subcentres is 1; it must be 2 or more"),
        ("circle", {"m": 1.0}, "circle margin m is 1.0; it must lie in 0..1"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        margins.build(name, **options)


def test_a_head_that_a_margin_refuses_is_answered_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(margins.CosFace, "refuses", {"full": "it is only a test"})
    with pytest.raises(ValueError, match="margin CosFace does not work with head 'full': it is only a test"):
        heads.build("full", 10, 4, "cosface")


def test_margins_refuse_only_heads_by_their_names() -> None:
    refused = {head for margin in margins.MARGINS.values() for head in margin.refuses}
    assert refused <= {"full", "partial_fc", "attfc", "f2c"}
