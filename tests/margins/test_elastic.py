"""ElasticFace: what is drawn, how it is dealt out, and that it can be repeated."""

import math

import pytest
import torch
from torch import Tensor

from facescale import margins
from facescale.margins.elastic import ElasticArc, normal_numbers


def drawn(margin: ElasticArc, cos_B: Tensor) -> Tensor:
    """Margins of one training step."""
    return margin.prepare(cos_B).extra["m"]


def test_drawn_numbers_are_standard_normal_and_independent_of_each_other() -> None:
    x = normal_numbers(5, torch.tensor(17), 200_000)
    assert abs(x.mean()) < 0.01
    assert abs(x.std() - 1) < 0.01
    shares = [(x < level).double().mean().item() for level in (-2.0, -1.0, 0.0, 1.0, 2.0)]
    assert shares == pytest.approx([0.0228, 0.1587, 0.5, 0.8413, 0.9772], abs=0.004)
    for other in (
        x.roll(1),
        normal_numbers(5, torch.tensor(18), 200_000),
        normal_numbers(6, torch.tensor(17), 200_000),
    ):
        assert abs(torch.corrcoef(torch.stack([x, other]))[0, 1]) < 0.01


def test_each_step_draws_anew_and_a_second_process_draws_the_same() -> None:
    first, peer = margins.build("elastic_arc"), margins.build("elastic_arc")
    cos_B = torch.zeros(64)
    a, b = drawn(first, cos_B), drawn(first, cos_B)
    assert not torch.equal(a, b)
    torch.manual_seed(99)  # a process's own random state plays no part
    assert torch.equal(drawn(peer, cos_B), a)
    assert not torch.equal(drawn(margins.build("elastic_arc", seed=1), cos_B), a)


def test_margins_have_the_wanted_mean_and_deviation() -> None:
    m_B = drawn(margins.build("elastic_cos", m=0.35, std=0.05), torch.zeros(50_000))
    assert (m_B.mean().item(), m_B.std().item()) == pytest.approx((0.35, 0.05), abs=1e-3)


def test_elastic_arc_adds_the_drawn_angle_and_elastic_cos_subtracts_the_drawn_cosine() -> None:
    cos_B = torch.tensor([0.5, -0.2], dtype=torch.float64)
    margin = margins.build("elastic_arc").double()
    target = margin.prepare(cos_B)
    torch.testing.assert_close(margin.target(target), 64 * (cos_B.arccos() + target.extra["m"]).cos())
    margin = margins.build("elastic_cos").double()
    target = margin.prepare(cos_B)
    torch.testing.assert_close(margin.target(target), 64 * (cos_B - target.extra["m"]))


def test_plus_gives_the_largest_margin_to_the_sample_farthest_from_its_centre() -> None:
    cos_B = torch.tensor([0.3, 0.9, -0.1, 0.6])
    m_B = drawn(margins.build("elastic_arc", plus=True), cos_B)
    assert m_B.argsort().tolist() == [1, 3, 0, 2]
    plain = drawn(margins.build("elastic_arc"), cos_B)
    assert sorted(m_B.tolist()) == sorted(plain.tolist())


def test_plus_under_compat_indexes_the_sorted_margins_as_the_release_does() -> None:
    cos_B = torch.tensor([0.3, 0.9, -0.1, 0.6])
    m_B = drawn(margins.build("elastic_arc", plus=True, compat=True), cos_B)
    ascending = sorted(drawn(margins.build("elastic_arc"), cos_B).tolist())
    nearest_first = [1, 3, 0, 2]
    assert m_B.tolist() == [ascending[i] for i in nearest_first]


def test_plus_deals_margins_among_the_samples_that_have_a_centre() -> None:
    cos_B, has_B = torch.tensor([0.3, 0.0, 0.9, 0.0, -0.1]), torch.tensor([True, False, True, False, True])
    margin = margins.build("elastic_arc", plus=True)
    m_B = margin.prepare(cos_B, None, has_B).extra["m"]
    plain = drawn(margins.build("elastic_arc"), cos_B)
    assert m_B[has_B].argsort().tolist() == [1, 0, 2]
    assert sorted(m_B[has_B].tolist()) == sorted(plain[has_B].tolist())
    assert m_B.isfinite().all()


def test_arc_under_compat_has_no_fallback_beyond_pi() -> None:
    cos_B = torch.tensor([math.cos(3.0)], dtype=torch.float64)
    for compat in (False, True):
        margin = margins.build("elastic_arc", compat=compat).double().eval()
        expected = math.cos(3.5) if compat else cos_B.item() - 0.5 * math.sin(0.5)
        assert margin.target(margin.prepare(cos_B)).item() / 64 == pytest.approx(expected)


def test_a_negative_deviation_is_named() -> None:
    with pytest.raises(ValueError, match="standard deviation of the margin is -1; it must be 0 or more"):
        margins.build("elastic_cos", std=-1)
