"""UniTSFace's sample-to-sample term, written out by hand."""

import math

import pytest
import torch
from torch import Tensor

from facescale import margins


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def four() -> tuple[Tensor, Tensor]:
    """Three images of person 7, one of person 9; raw embeddings."""
    e_BD = torch.randn(4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return 3 * e_BD, torch.tensor([7, 9, 7, 7])


def test_the_logits_are_those_of_cosface() -> None:
    x, y = torch.tensor([[0.5, 0.1]]), torch.tensor([0])
    assert torch.equal(margins.build("unitsface", m=0.3)(x, y), margins.build("cosface", m=0.3)(x, y))


def test_samples_with_a_partner_pay_for_partners_below_and_strangers_above_the_threshold() -> None:
    margin = margins.build("unitsface", pair_scale=8.0, pair_m=0.1, pair_weight=2.0).double()
    margin.bias.data.fill_(1.5)
    e_BD, id_B = four()
    unit = e_BD / e_BD.norm(dim=1, keepdim=True)
    c = (unit @ unit.T).tolist()
    losses = []
    for i, partners in ((0, (2, 3)), (2, (0, 3)), (3, (0, 2))):
        pull = sum(softplus(-(8 * (c[i][p] - 0.1) - 1.5)) for p in partners) / 2
        losses.append(pull + softplus(8 * c[i][1] - 1.5))
    assert margin.batch_term(e_BD, id_B).item() == pytest.approx(2.0 * sum(losses) / 3)


def test_a_batch_without_partners_costs_nothing_and_has_a_finite_gradient() -> None:
    margin = margins.build("unitsface").double()
    e_BD = four()[0].requires_grad_()
    term = margin.batch_term(e_BD, torch.arange(4))
    term.backward()
    assert term.item() == 0.0
    assert e_BD.grad.abs().sum() == 0


def test_a_batch_of_one_person_has_no_strangers_and_stays_finite() -> None:
    margin = margins.build("unitsface").double()
    e_BD = four()[0].requires_grad_()
    margin.batch_term(e_BD, torch.zeros(4, dtype=torch.int64)).backward()
    assert e_BD.grad.isfinite().all()
    assert margin.bias.item() == 0.0


def test_identical_and_zero_embeddings_stay_finite() -> None:
    margin = margins.build("unitsface")
    e_BD = torch.ones(4, 8)
    e_BD[3] = 0
    e_BD.requires_grad_()
    term = margin.batch_term(e_BD, torch.tensor([0, 0, 1, 1]))
    term.backward()
    assert term.isfinite()
    assert e_BD.grad.isfinite().all()


def test_the_threshold_starts_where_the_strangers_are_and_then_learns() -> None:
    margin = margins.build("unitsface", pair_scale=8.0).double()
    e_BD, id_B = four()
    unit = e_BD / e_BD.norm(dim=1, keepdim=True)
    c = unit @ unit.T
    to_person_9 = [8 * c[i, 1].item() for i in (0, 2, 3)]
    from_person_9 = torch.logsumexp(8 * c[1, [0, 2, 3]], 0).item()
    level = (sum(to_person_9) + from_person_9) / 4
    margin.batch_term(e_BD, id_B).backward()
    assert margin.bias.item() == pytest.approx(level)
    assert margin.bias.grad.abs() > 0
    margin.bias.data.fill_(5.0)
    margin.batch_term(e_BD, id_B)
    assert margin.bias.item() == 5.0


def test_gradients_of_the_term_are_those_of_the_function() -> None:
    margin = margins.build("unitsface", pair_scale=8.0).double().eval()
    margin.bias.data.fill_(1.0)
    e_BD, id_B = four()
    assert torch.autograd.gradcheck(lambda e: margin.batch_term(e, id_B), e_BD.requires_grad_())


def test_a_scale_that_is_not_positive_is_named() -> None:
    with pytest.raises(ValueError, match="pair_scale is 0; it must be positive"):
        margins.build("unitsface", pair_scale=0)
