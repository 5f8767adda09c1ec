"""Rows under SGD and AdamW against torch's optimizers over the whole matrix, in float64."""

from typing import Any

import pytest
import torch
from torch import Tensor

from facescale.centres.options import StoreOptions
from facescale.centres.row_optim import DenseSteps, RowRule, RowSGD

N, D = 6, 3


def block(rule: RowRule, w_ND: Tensor) -> dict[str, Tensor]:
    fields = {p.name: torch.zeros(N, p.width, dtype=p.dtype) for p in rule.fields(D, w_ND.dtype)}
    return {"rows": w_ND.clone(), **fields}


def step(rule: RowRule, fields: dict[str, Tensor], grad_ND: Tensor, lr: float) -> None:
    into, factor = rule.gradient_into(fields)
    total_ND = grad_ND + rule.coupled_decay * fields["rows"]
    if into is not None:
        total_ND = into.mul_(factor).add_(total_ND)
    rule.step(fields, total_ND, lr)


def gradients(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(N, D, generator=generator, dtype=torch.float64) for _ in range(count)]


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("sgd", {"momentum": 0.0}),
        ("sgd", {"momentum": 0.8}),
        ("sgd", {"momentum": 0.8, "nesterov": True}),
        ("adamw", {"betas": (0.9, 0.999)}),
        ("adamw", {"betas": (0.5, 0.6)}),
    ],
)
def test_rows_equal_torch(optimizer: str, options: dict[str, Any]) -> None:
    start_ND, *grads = gradients(6)
    weight = torch.nn.Parameter(start_ND.clone())
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    torch_optimizer = kind([weight], weight_decay=0.1, lr=1.0, **options)
    rule = StoreOptions(optimizer=optimizer, weight_decay=0.1, **options).row_rule()  # type: ignore[arg-type]
    fields = block(rule, start_ND)
    for number, grad_ND in enumerate(grads):
        lr = 0.1 / (1 + number)
        torch_optimizer.param_groups[0]["lr"] = lr
        weight.grad = grad_ND.clone()
        torch_optimizer.step()
        step(rule, fields, grad_ND, lr)
    torch.testing.assert_close(fields["rows"], weight.detach(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("nesterov", [False, True])
def test_skipped_steps_are_made_up_for_as_torch_takes_them(nesterov: bool) -> None:
    start_ND, grad_ND = gradients(2)
    weight = torch.nn.Parameter(start_ND.clone())
    sgd = torch.optim.SGD([weight], lr=0.2, momentum=0.7, weight_decay=0.3, nesterov=nesterov)
    rule = RowSGD(0.7, 0.3, nesterov)
    dense, fields = DenseSteps(rule), block(rule, start_ND)
    fields["last"] = torch.zeros(N, 1, dtype=torch.int32)
    for number in range(5):
        weight.grad = grad_ND if number == 0 else torch.zeros(N, D, dtype=torch.float64)
        sgd.step()
        if number == 0:
            step(rule, fields, grad_ND, 0.2)
            fields["last"].fill_(1)
        dense.add(0.2)
    dense.catch_up(fields)
    torch.testing.assert_close(fields["rows"], weight.detach())
    torch.testing.assert_close(fields["momentum"], sgd.state[weight]["momentum_buffer"])


def test_dense_decay_grows_beyond_its_first_table() -> None:
    rule = RowSGD(0.0, 0.1)
    dense, fields = DenseSteps(rule), block(rule, torch.ones(N, D, dtype=torch.float64))
    fields["last"] = torch.arange(N, dtype=torch.int32)[:, None]
    for _ in range(1030):
        dense.add(0.01)
    dense.catch_up(fields)
    expected = 0.999 ** torch.arange(1030, 1030 - N, -1, dtype=torch.float64)
    torch.testing.assert_close(fields["rows"], expected[:, None].expand(N, D))


def test_dense_decay_needs_sgd() -> None:
    with pytest.raises(ValueError, match="decay 'dense' is known for optimizer 'sgd' only"):
        DenseSteps(StoreOptions(optimizer="adamw").row_rule())
