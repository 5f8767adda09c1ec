"""The Triton kernels, run by Triton's interpreter on the CPU, against the formula in float64."""

import dataclasses
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.compiled import interpreted

G, C, N, D, SCALE = 5, 70, 90, 20, 24.0


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return interpreted("class_softmax")


@dataclasses.dataclass(frozen=True)
class Case:
    """Embeddings, rows with momentum, target classes, what backward left, and which rows take part."""

    e_GD: Tensor
    w_ND: Tensor
    m_ND: Tensor
    own_G: Tensor
    grad_value_G: Tensor
    grad_target_G: Tensor
    row_C: Tensor | None

    @property
    def rows(self) -> Tensor:
        return torch.arange(N) if self.row_C is None else self.row_C


def drawn(gathered: bool) -> Case:
    generator = torch.Generator().manual_seed(3)
    row_C = torch.randperm(N, generator=generator)[:C].sort().values if gathered else None
    own_G = torch.tensor([3, -1, (C if gathered else N) - 1, 33, 3])  # absent, the last one, twice the same
    return Case(
        F.normalize(torch.randn(G, D, generator=generator)),
        torch.randn(N, D, generator=generator) / 10,
        torch.randn(N, D, generator=generator) / 100,
        own_G,
        torch.rand(G, generator=generator),
        torch.where(own_G < 0, 0.0, -torch.rand(G, generator=generator)),
        row_C,
    )


def expected(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """Log-sum-exp of the negatives, its gradient by the embeddings, the gradient of the loss by the rows."""
    e_GD = case.e_GD.double().requires_grad_()
    w_CD = case.w_ND[case.rows].double().requires_grad_()
    cos_GC = e_GD @ F.normalize(w_CD).T
    own_GC = case.own_G[:, None] == torch.arange(len(w_CD))
    value_G = (SCALE * cos_GC).masked_fill(own_GC, -torch.inf).logsumexp(1)
    target_G = cos_GC.gather(1, case.own_G.clamp_min(0)[:, None])[:, 0]
    (grad_GD,) = torch.autograd.grad(value_G.sum(), e_GD, retain_graph=True)
    loss = (value_G * case.grad_value_G).sum() + (target_G * case.grad_target_G).sum()
    (grad_CD,) = torch.autograd.grad(loss, w_CD)
    return value_G.detach(), grad_GD, grad_CD


@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("gathered", [True, False])
def test_value_and_gradient_are_those_of_float64(kernels: ModuleType, gathered: bool, bounded: bool) -> None:
    case = drawn(gathered)
    value_G, grad_GD, _ = expected(case)
    rows = kernels.Rows(case.w_ND, case.own_G, case.row_C)
    max_G, sum_G, found_GD = kernels.forward(case.e_GD, rows, SCALE, bounded)
    torch.testing.assert_close((max_G + sum_G.log()).double(), value_G, rtol=0, atol=1e-5)
    torch.testing.assert_close((found_GD / sum_G[:, None]).double(), grad_GD, rtol=0, atol=1e-4)
    assert bool((max_G == 0).all()) == bounded
    joined_G, joined_GD = kernels.value(case.e_GD, rows, SCALE, bounded)
    torch.testing.assert_close(joined_G.double(), value_G, rtol=0, atol=1e-5)
    torch.testing.assert_close(joined_GD.double(), grad_GD, rtol=0, atol=1e-4)


def test_products_of_half_precision_are_close(kernels: ModuleType) -> None:
    case = drawn(gathered=True)
    value_G, _, _ = expected(case)
    half_GD = case.e_GD.bfloat16()
    rows = kernels.Rows(case.w_ND, case.own_G, case.row_C)
    _, sum_G, _ = kernels.forward(half_GD, rows, SCALE, True)

    torch.testing.assert_close(sum_G.log().double(), value_G, rtol=0, atol=0.2)  # 2^-8 of a logit, truncated


def test_unit_rows_with_another_key_count(kernels: ModuleType) -> None:
    case = drawn(gathered=False)
    unit_ND, key_N = F.normalize(case.w_ND), torch.arange(N) // 2
    hidden_GN = key_N == case.own_G[:, None]
    wanted_G = (SCALE * case.e_GD @ unit_ND.T).masked_fill(hidden_GN, -torch.inf).logsumexp(1)
    found_G, _ = kernels.value(case.e_GD, kernels.Rows(unit_ND, case.own_G, None, key_N, True), SCALE, True)
    torch.testing.assert_close(found_G, wanted_G, rtol=0, atol=1e-5)


def test_no_rows_at_all_have_the_value_of_nothing(kernels: ModuleType) -> None:
    case = drawn(gathered=False)
    found_G, grad_GD = kernels.value(case.e_GD, kernels.Rows(case.w_ND[:0], case.own_G), SCALE, True)
    assert (found_G == -torch.inf).all() and not grad_GD.any()


def moved(kernels: ModuleType, case: Case, w_ND: Tensor, m_ND: Tensor | None, **more: float) -> None:
    value_G, _, _ = expected(case)
    factors = {"scale": SCALE, "decay": 1e-3, "momentum": 0.9, "lr": 0.1, "seed": 1, **more}
    given = case.own_G, value_G.float(), case.grad_value_G, case.grad_target_G
    kernels.move(case.e_GD, w_ND, m_ND, *given, row_C=case.row_C, **factors)


@pytest.mark.parametrize("gathered", [True, False])
def test_rows_move_as_sgd_in_float64_moves_them(kernels: ModuleType, gathered: bool) -> None:
    case = drawn(gathered)
    w_ND, m_ND = case.w_ND.clone(), case.m_ND.clone()
    moved(kernels, case, w_ND, m_ND)
    before_CD, before_m_CD = case.w_ND[case.rows].double(), case.m_ND[case.rows].double()
    m_CD = 0.9 * before_m_CD + expected(case)[2] + 1e-3 * before_CD
    torch.testing.assert_close(m_ND[case.rows].double(), m_CD, rtol=0, atol=1e-5 * float(m_CD.abs().max()))
    torch.testing.assert_close(w_ND[case.rows].double(), before_CD - 0.1 * m_CD, rtol=0, atol=1e-5)
    rest = torch.ones(N, dtype=torch.bool).index_fill(0, case.rows, False)
    assert torch.equal(w_ND[rest], case.w_ND[rest]) and torch.equal(m_ND[rest], case.m_ND[rest])


def test_rows_without_momentum_follow_the_gradient(kernels: ModuleType) -> None:
    case = drawn(gathered=True)
    w_ND = case.w_ND.clone()
    moved(kernels, case, w_ND, None, momentum=0.0)
    before_CD = case.w_ND[case.rows].double()
    wanted_CD = before_CD - 0.1 * (expected(case)[2] + 1e-3 * before_CD)
    torch.testing.assert_close(w_ND[case.rows].double(), wanted_CD, rtol=0, atol=1e-5)


def test_half_precision_rows_are_rounded_to_a_neighbour_and_right_on_average(kernels: ModuleType) -> None:
    case = drawn(gathered=False)
    case = dataclasses.replace(case, w_ND=case.w_ND.bfloat16().float(), m_ND=case.m_ND.bfloat16().float())
    exact_ND, m_ND = case.w_ND.clone(), case.m_ND.clone()
    moved(kernels, case, exact_ND, m_ND, lr=1e-4)
    errors = []
    for seed in range(20):
        half_ND = case.w_ND.bfloat16()
        moved(kernels, case, half_ND, case.m_ND.bfloat16(), lr=1e-4, seed=seed)
        errors.append(half_ND.float() - exact_ND)
    error_SND = torch.stack(errors)
    spacing_ND = exact_ND.abs() * 2**-7
    assert (error_SND.abs() <= spacing_ND).all()
    mean_error = (error_SND / spacing_ND).mean()
    assert abs(float(mean_error)) < 0.02  # 36,000 roundings, each off by less than a spacing
    assert not torch.equal(errors[0], errors[1])
