"""Formulas of the one-against-all losses, written out by hand."""

import math

import pytest
import torch

from facescale import margins

COS = torch.tensor([[0.5, 0.2, -0.6]], dtype=torch.float64)
ONE = torch.tensor([0])


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


@pytest.mark.parametrize("compat", [False, True])
def test_sphereface2_is_weighted_binary_cross_entropy(compat: bool) -> None:
    margin = margins.build("sphereface2", scale=40, m=0.4, alpha=0.7, t=3, weight=50, compat=compat).double()
    margin.bias.data.fill_(-3.0)
    g = [2 * ((c + 1) / 2) ** 3 - 1 for c in COS[0].tolist()]
    target = 50 / 40 * 0.7 * softplus(-(40 * (g[0] - 0.4) - 3))
    negatives = [50 / 40 * 0.3 * softplus(40 * (x + 0.4) - 3) for x in g[1:]]
    assert margin(COS, ONE)[0].tolist() == pytest.approx([target, *negatives])


@pytest.mark.parametrize("compat", [False, True])
def test_sphereface2_has_the_gradient_of_g_or_under_compat_of_the_cosine(compat: bool) -> None:
    margin = margins.build("sphereface2", compat=compat).double()
    margin.bias.data.fill_(-3.0)
    x = COS.clone().requires_grad_()
    margin(x, ONE)[0, 1].backward()
    half = (0.2 + 1) / 2
    logit = 40 * (2 * half**3 - 1 + 0.4) - 3
    bend = 1.0 if compat else 3 * half**2
    assert x.grad[0, 1].item() == pytest.approx(50 / 40 * 0.3 * 40 * bend / (1 + math.exp(-logit)))


@pytest.mark.parametrize("num_negatives", [10, 1000, 100_000, 40_000_000])
def test_sphereface2_starts_where_both_sides_pull_equally(num_negatives: int) -> None:
    margin = margins.build("sphereface2").double()
    margin.set_num_negatives(num_negatives)
    cos = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    margin(cos, ONE).sum().backward()
    target, other = cos.grad[0].tolist()
    assert target < 0 < other
    assert -target == pytest.approx(num_negatives * other, rel=1e-6)


def test_sphereface2_starts_at_the_releases_number() -> None:
    margin = margins.build("sphereface2")
    margin.set_num_negatives(10571)
    z = 0.7 / (0.3 * 10571)
    ay, ai = 40 * (2 * 0.5**3 - 1 - 0.4), 40 * (2 * 0.5**3 - 1 + 0.4)
    expected = math.log(2 * z) - ai - math.log(1 - z + math.sqrt((1 - z) ** 2 + 4 * z * math.exp(ay - ai)))
    assert margin.bias.item() == pytest.approx(expected)


def test_uniface_is_binary_cross_entropy_around_one_threshold() -> None:
    margin = margins.build("uniface", scale=16, m=0.4, weight=0.5).double()
    margin.set_num_negatives(2)
    b = math.log(30)
    assert margin.bias.item() == pytest.approx(b)
    target = softplus(-(16 * (0.5 - 0.4) - b))
    negatives = [0.5 * softplus(16 * c - b) for c in (0.2, -0.6)]
    assert margin(COS, ONE)[0].tolist() == pytest.approx([target, *negatives], rel=1e-6)


def test_uniface_under_compat_has_no_gradient_for_the_worst_samples() -> None:
    for compat, alive in ((True, False), (False, True)):
        margin = margins.build("uniface", compat=compat).double()
        margin.bias.data.fill_(20.0)
        x = torch.tensor([[-0.9, 0.1]], dtype=torch.float64, requires_grad=True)
        margin(x, ONE)[0, 0].backward()
        assert (x.grad[0, 0] != 0) == alive


@pytest.mark.parametrize("name", ["sphereface2", "uniface"])
def test_the_bias_learns(name: str) -> None:
    margin = margins.build(name)
    margin.set_num_negatives(2)
    margin(COS.float(), ONE).sum().backward()
    assert margin.bias.grad.abs() > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("sphereface2", {"alpha": 1.0}, "alpha is 1.0; it is the share of the target class"),
        ("sphereface2", {"t": 0.5}, "t is 0.5; it must be 1 or more"),
        ("uniface", {"weight": 0}, "weight of the other classes is 0; it must be positive"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        margins.build(name, **options)
