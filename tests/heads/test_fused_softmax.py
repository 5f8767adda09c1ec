"""Heads whose softmax runs in Triton's kernels (interpreted on the CPU) against the same heads in chunks."""

import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from facescale import heads
from facescale.heads import fused_softmax
from facescale.heads.centre_head import CentreHead
from facescale.kernels import agree
from tests.compiled import interpreted

C, D, B = 90, 12, 6
CPU = torch.device("cpu")
HEADS: list[tuple[str, dict[str, Any]]] = [("full", {}), ("partial_fc", {"rate": 0.4})]


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return interpreted("class_softmax")


def make(
    name: str,
    options: dict[str, Any],
    kernels: ModuleType | None,
    monkeypatch: pytest.MonkeyPatch,
    margin: str = "cosface",
) -> CentreHead:
    monkeypatch.setattr(fused_softmax, "kernels_for", lambda device, products, dim: kernels)
    head = heads.build(name, C, D, margin, **{"products": "float32", **options})
    assert isinstance(head, CentreHead)
    return head


def one_pass(head: CentreHead, seed: int, batch: int = B) -> tuple[float, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q_VBD = torch.randn(1, batch, D, generator=generator).requires_grad_()
    loss = head(q_VBD, torch.randint(0, C, (batch,), generator=generator)).loss
    (head.loss_scale * loss).backward()
    assert q_VBD.grad is not None
    return float(loss.detach()), q_VBD.grad


def assert_equal_training(with_kernels: CentreHead, without: CentreHead, parts: int = 1) -> None:
    assert with_kernels._fused is not None and without._fused is None
    for step in range(3):
        for part in range(parts):
            (loss, grad_BD), (other, other_BD) = (
                one_pass(head, 10 * step + part) for head in (with_kernels, without)
            )
            assert loss == pytest.approx(other, rel=1e-5)
            torch.testing.assert_close(grad_BD, other_BD, rtol=1e-3, atol=1e-5 * float(other_BD.abs().max()))
        with_kernels.after_step(0.05)
        without.after_step(0.05)
    everybody = torch.arange(C)
    torch.testing.assert_close(
        with_kernels.read_rows(everybody), without.read_rows(everybody), rtol=1e-3, atol=1e-4
    )


@pytest.mark.parametrize("margin", ["cosface", "arcface"])
@pytest.mark.parametrize(("name", "options"), HEADS)
def test_a_head_learns_the_same(
    name: str, options: dict[str, Any], margin: str, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = [make(name, options, module, monkeypatch, margin) for module in (kernels, None)]
    assert_equal_training(pair[0], pair[1])


@pytest.mark.parametrize(("name", "options"), HEADS)
def test_batches_of_a_step_add_up_and_their_scale_is_divided_out(
    name: str, options: dict[str, Any], kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = [make(name, options, module, monkeypatch) for module in (kernels, None)]
    for head in pair:
        head.begin_step(0.0, 1.0, loss_scale=256.0)
    assert_equal_training(pair[0], pair[1], parts=2)


def test_a_batch_that_no_program_takes_goes_through_the_chunks(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = [make("full", {}, module, monkeypatch) for module in (kernels, None)]
    monkeypatch.setattr(kernels, "MAX_BATCH", B)
    results = [[one_pass(head, seed, batch) for seed, batch in ((0, B), (1, B + 1))] for head in pair]
    for (loss, grad_BD), (other, other_BD) in zip(*results, strict=True):
        assert loss == pytest.approx(other, rel=1e-5)
        torch.testing.assert_close(grad_BD, other_BD, rtol=1e-3, atol=1e-5)
    for head in pair:
        head.after_step(0.05)
    everybody = torch.arange(C)
    torch.testing.assert_close(*(head.read_rows(everybody) for head in pair), rtol=1e-3, atol=1e-4)


def test_a_resumed_head_rounds_as_one_that_went_on(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole, part = (make("full", {"store_dtype": "bfloat16"}, kernels, monkeypatch) for _ in range(2))
    for head in (whole, part):
        one_pass(head, 0)
        head.after_step(0.05)
    part.save_rows(tmp_path)
    resumed = make("full", {"store_dtype": "bfloat16"}, kernels, monkeypatch)
    resumed.load_rows(tmp_path)
    resumed.load_state_dict(part.state_dict())
    for head in (whole, resumed):
        one_pass(head, 1)
        head.after_step(0.05)
    assert torch.equal(whole.read_rows(torch.arange(C)), resumed.read_rows(torch.arange(C)))


@pytest.mark.parametrize(
    ("options", "margin"),
    [
        ({}, "curricular"),
        ({}, "subcenter_arcface"),
        ({}, "sphereface2"),
        ({"optimizer": "adamw"}, "cosface"),
        ({"nesterov": True}, "cosface"),
        ({"placement": "host"}, "cosface"),
        ({"store_dtype": "float16"}, "cosface"),
    ],
)
def test_what_the_kernels_do_not_compute_goes_through_the_chunks(
    options: dict[str, Any], margin: str, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make("full", options, kernels, monkeypatch, margin)._fused is None


def test_planned_memory_is_rows_and_what_the_programs_leave(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = make("full", {"store_dtype": "bfloat16"}, kernels, monkeypatch)
    planned = head.bytes_needed(B)
    assert planned.device == 2 * 2 * C * D  # rows and momentum
    partial_sums, embeddings, rounding = 4 * (132 * B * (D + 2) + B * (D + 1)), 4 * 7 * B * D, 4 << 20
    assert planned.transient == partial_sums + embeddings + rounding


def test_the_kernels_are_for_gpus_and_half_precision_products() -> None:
    assert fused_softmax.kernels_for(CPU, torch.bfloat16, D) is None
    assert fused_softmax.kernels_for(torch.device("cuda", 0), torch.float32, D) is None


def test_kernels_that_agree_with_torch_are_used(kernels: ModuleType) -> None:
    fused_softmax.check(kernels, CPU, torch.float32, D, tolerance=1e-5)


def test_kernels_that_compute_something_else_are_not_used(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "move", lambda *args, **options: None)
    with pytest.raises(ArithmeticError, match="the momentum differs from torch's"):
        fused_softmax.check(kernels, CPU, torch.float32, D, tolerance=1e-5)
    with pytest.warns(UserWarning, match=r"These do not run on cpu \(the momentum differs from torch's\)"):
        assert not agree("These", fused_softmax.check, kernels, CPU, D)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # it is said once
        assert not agree("These", fused_softmax.check, kernels, CPU, D)
