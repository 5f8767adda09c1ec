"""Formulas of the margins that re-weight other classes, written out by hand."""

import math

import pytest
import torch
from torch import Tensor

from facescale import margins
from facescale.margins import Margin

OWN, OTHERS = 0.5, (0.4, 0.05, -0.2)  # cosines of one sample


def values(margin: Margin) -> list[float]:
    """Logits over scale: target class first."""
    row = margin.double()(torch.tensor([[OWN, *OTHERS]], dtype=torch.float64), torch.tensor([0]))
    return (row[0] / margin.scale).tolist()


def test_mv_softmax_am_raises_classes_above_the_own_value() -> None:
    target = OWN - 0.35
    hard = [1.2 * c + 0.2 if c > target else c for c in OTHERS]
    assert values(margins.build("mv_softmax", m=0.35, t=0.2)) == pytest.approx([target, *hard])


def test_mv_softmax_arc_raises_classes_above_the_own_value() -> None:
    target = math.cos(math.acos(OWN) + 0.5)
    hard = [1.3 * c + 0.3 if c > target else c for c in OTHERS]
    assert values(margins.build("mv_softmax", form="arc", m=0.5, t=0.3)) == pytest.approx([target, *hard])


def test_sv_softmax_counts_its_weight_from_one() -> None:
    assert values(margins.build("sv_softmax", m=0.3, t=1.2)) == pytest.approx(
        values(margins.build("mv_softmax", m=0.3, t=0.2))
    )


def test_sv_softmax_under_compat_leaves_out_a_margin_that_would_pass_zero() -> None:
    assert values(margins.build("sv_softmax", m=0.4, compat=True))[0] == pytest.approx(OWN - 0.4)
    assert values(margins.build("sv_softmax", m=0.6, compat=True))[0] == pytest.approx(OWN)


def test_curricular_updates_t_first_and_weighs_hard_classes_by_it() -> None:
    margin = margins.build("curricular", m=0.5)
    margin.t.fill_(0.3)
    out = values(margin)
    t = 0.01 * OWN + 0.99 * 0.3
    target = math.cos(math.acos(OWN) + 0.5)
    assert margin.t.item() == pytest.approx(t)
    assert out == pytest.approx([target, *(c * (t + c) if c > target else c for c in OTHERS)])


def test_curricular_takes_its_mean_over_samples_that_have_a_centre() -> None:
    margin = margins.build("curricular").double()
    cos_BC = torch.tensor([[0.5, 0.1], [0.9, 0.9], [0.7, 0.3]], dtype=torch.float64)
    margin(cos_BC, torch.tensor([0, -1, 1]))
    assert margin.t.item() == pytest.approx(0.01 * (0.5 + 0.3) / 2)
    margin(cos_BC, torch.tensor([-1, -1, -1]))
    assert margin.t.item() == pytest.approx(0.01 * (0.5 + 0.3) / 2)


def robust(**options: float) -> Margin:
    return margins.build("robustface", **({"m": 0.5, "band": 0.3, "t": 0.2} | options))


def test_robustface_pushes_hard_classes() -> None:
    target = math.cos(math.acos(OWN) + 0.5)
    assert values(robust()) == pytest.approx([target, *(1.2 * c if c > target else c for c in OTHERS)])


def test_robustface_trusts_noisy_classes_less_as_training_goes_on() -> None:
    margin = robust(noise=0.2)
    margin.phi.fill_(0.4)
    margin.eval()
    c = math.cos(math.acos(OWN) - 0.35)  # nearer than the target class by more than the band of 0.3
    d = math.cos(math.acos(OWN) - 0.25)  # nearer, within the band: hard
    row = margin.double()(torch.tensor([[OWN, c, d]], dtype=torch.float64), torch.tensor([0]))[0] / 64
    assert row[1:].tolist() == pytest.approx([(1 - 0.4 / 0.8) ** 2 * c, 1.2 * d])


def test_robustface_follows_the_releases_counts_one_step_late() -> None:
    margin = robust(noise=0.1).double()
    phi, band, pending = 0.0, 0.3, None
    for step in range(4):
        cos_BC = torch.rand(5, 7, generator=torch.Generator().manual_seed(step), dtype=torch.float64)
        target_B = torch.arange(5)
        if pending is not None:
            phi = 0.01 * pending + 0.99 * phi
        band *= 1 - phi / 0.9
        margin(cos_BC, target_B)
        assert margin.phi.item() == pytest.approx(phi, rel=1e-6)
        assert margin.band.item() == pytest.approx(band, rel=1e-6)
        target_B = cos_BC[torch.arange(5), target_B]
        pending = 1 - (cos_BC > (target_B.arccos() + 0.5).cos()[:, None]).double().mean().item()


def test_robustface_counts_chunks_as_the_whole() -> None:
    cos_BC, target_B = torch.rand(5, 9) * 2 - 1, torch.arange(5)
    whole, parts = robust(), robust()
    whole(cos_BC, target_B)
    target = parts.prepare(cos_BC.diagonal())
    for chunk in cos_BC.split(4, dim=1):
        parts.observe(chunk, target)
    assert whole.counts.tolist() == parts.counts.tolist()
    assert whole.counts[1] == 45


def test_robustface_stops_at_no_trust_where_the_release_turns_it_around() -> None:
    for compat, weight in ((False, 0.0), (True, (1 - 0.95 / 0.8) ** 2)):
        margin = robust(noise=0.2, compat=compat).eval()
        margin.phi.fill_(0.95)
        row = margin(torch.tensor([[0.1, 0.9]]), torch.tensor([0]))[0]
        assert row[1].item() / 64 == pytest.approx(weight * 0.9, abs=1e-6)


def test_robustface_sees_no_noise_around_a_sample_at_its_centre() -> None:
    near: Tensor = torch.tensor([[0.99, 0.98]], dtype=torch.float64)
    for compat, weight in ((False, 1.2), (True, 1.0)):
        margin = robust(compat=compat).double().eval()
        assert margin(near, torch.tensor([0]))[0, 1].item() / 64 == pytest.approx(weight * 0.98)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("mv_softmax", {"form": "sum"}, "form of margin 'mv_softmax' is 'sum'; it must be one of am, arc"),
        ("mv_softmax", {"t": -0.1}, "weight of hard classes t is -0.1; it must be 0"),
        ("sv_softmax", {"t": 0.5}, "weight of hard classes t is 0.5; it must be 1"),
        ("robustface", {"noise": 1.0}, "noise is 1.0; it is the share of wrong labels"),
        ("robustface", {"band": -0.1}, "band is -0.1; it is an angle in radians"),
    ],
)
def test_options_out_of_range_are_named(name: str, options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        margins.build(name, **options)
