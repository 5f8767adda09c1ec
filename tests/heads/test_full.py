"""The chunked heads against the same loss written densely in float64."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from facescale import heads, margins
from facescale.heads.centre_head import CentreHead
from tests.heads.dense import dense_loss

C, D, B = 203, 32, 16


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed + 100)  # not the one of the centres
    return torch.randn(B, D, generator=generator) * 5, torch.randint(0, C, (B,), generator=generator)


def make(name: str = "full", margin: str = "cosface", **options: Any) -> CentreHead:
    head = heads.build(name, C, D, margins.build(margin), **{"products": "float32", "chunk": 50, **options})
    assert isinstance(head, CentreHead)
    return head


def centres(head: CentreHead) -> Tensor:
    return head.read_rows(torch.arange(head.num_ids))


def run(head: CentreHead, e_BD: Tensor, id_B: Tensor, factor: float = 1.0) -> tuple[Tensor, Tensor]:
    e_BD = e_BD.clone().requires_grad_()
    out = head(e_BD[None], id_B)
    (out.loss * factor).backward()
    assert e_BD.grad is not None
    return out.loss.detach(), e_BD.grad


def dense(head: CentreHead, w_CD: Tensor, e_BD: Tensor, id_B: Tensor) -> tuple[Tensor, Tensor, Tensor, Any]:
    """Loss, gradients by embeddings and centres, and the margin, in float64."""
    margin = copy.deepcopy(head.margin).double()
    e_BD, w_CD = e_BD.double().requires_grad_(), w_CD.double().requires_grad_()
    loss = dense_loss(margin, e_BD, w_CD, id_B)
    loss.backward()
    assert e_BD.grad is not None and w_CD.grad is not None
    return loss.detach(), e_BD.grad, w_CD.grad, margin


def assert_near(value: Tensor, expected: Tensor, tolerance: float) -> None:
    assert (value - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("margin", margins.MARGINS)
def test_full_equals_the_dense_loss_and_gradients_for_every_margin(margin: str) -> None:
    torch.manual_seed(1)
    head = make(margin=margin, momentum=0.0, weight_decay=0.0)
    before = centres(head)
    before = before * (1 + torch.arange(len(before))[:, None] % 3)  # centres need not be of one length
    ids = torch.arange(C)
    head.write_rows(ids, before)
    e_BD, id_B = batch()
    torch.manual_seed(2)  # some margins draw their m
    expected = dense(head, before, e_BD, id_B)
    torch.manual_seed(2)
    loss, grad_BD = run(head, e_BD, id_B)
    head.after_step(1.0)
    assert_near(loss, expected[0], 1e-5)
    assert_near(grad_BD, expected[1], 1e-5)
    assert_near(before - centres(head), expected[2], 1e-5)
    for mine, other in zip(head.margin.parameters(), expected[3].parameters(), strict=True):
        assert_near(mine.grad, other.grad, 1e-5)


@pytest.mark.parametrize("chunk", [1, 7, C, 1000])
def test_the_size_of_a_chunk_does_not_change_the_result(chunk: int) -> None:
    results = []
    for size in (50, chunk):
        head = make(margin="curricular", chunk=size)
        loss, grad_BD = run(head, *batch())
        head.after_step(0.1)
        results.append((loss, grad_BD, centres(head)))
    for value, expected in zip(*results, strict=True):
        assert_near(value, expected, 1e-5)


def test_scales_beyond_the_range_of_float32_work() -> None:
    head = heads.build("full", C, D, margins.build("cosface", scale=300.0), products="float32", chunk=50)
    expected = dense(head, centres(head), *batch())
    loss, grad_BD = run(head, *batch())
    assert_near(loss, expected[0], 1e-5)
    assert_near(grad_BD, expected[1], 1e-5)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("sgd", {"momentum": 0.9}),
        ("sgd", {"momentum": 0.9, "nesterov": True}),
        ("adamw", {}),
        ("adamw", {"betas": (0.5, 0.6)}),
    ],
)
def test_rows_move_as_under_torch(optimizer: str, options: dict[str, Any]) -> None:
    head = make(optimizer=optimizer, weight_decay=0.01, **options)
    w_CD = torch.nn.Parameter(centres(head).double())
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    torch_optimizer = kind([w_CD], lr=0.01, weight_decay=0.01, **options)
    for step in range(4):
        e_BD, id_B = batch(step)
        w_CD.grad = dense(head, w_CD.detach(), e_BD, id_B)[2]
        torch_optimizer.step()
        run(head, e_BD, id_B)
        head.after_step(0.01)
    assert_near(centres(head), w_CD.detach(), 1e-3)


@pytest.mark.parametrize("options", [{}, {"rate": 0.3}], ids=["full", "partial_fc"])
def test_accumulation_moves_rows_by_the_sum_of_the_gradients(options: dict[str, float]) -> None:
    parts = [batch(1), batch(2), batch(3)]
    head = make("partial_fc" if options else "full", momentum=0.0, weight_decay=0.0, **options)
    before = centres(head)
    total = torch.zeros_like(before)
    for e_BD, id_B in parts:  # one at a time from the same start: the gradients that accumulation adds
        single = make("partial_fc" if options else "full", momentum=0.0, weight_decay=0.0, **options)
        run(single, e_BD, id_B)
        single.after_step(1.0)
        total += before - centres(single)
    for e_BD, id_B in parts:
        run(head, e_BD, id_B, factor=1 / 3)
    head.after_step(1.0)
    assert_near(before - centres(head), total / 3, 2e-5)


def test_a_loss_scale_is_divided_out_of_the_row_gradients() -> None:
    plain, scaled = make(), make()
    run(plain, *batch())
    plain.after_step(0.1)
    scaled.loss_scale = 1024.0
    _, grad_BD = run(scaled, *batch(), factor=1024.0)
    scaled.after_step(0.1)
    assert_near(centres(scaled), centres(plain), 1e-6)
    assert grad_BD.abs().max() > 1.0  # the embedding's gradient stays scaled: the loop unscales it


def test_a_skipped_step_leaves_rows_and_momentum_alone() -> None:
    head = make()
    run(head, *batch(1))
    head.skip_step()
    run(head, *batch(2))
    head.after_step(0.1)
    fresh = make()
    run(fresh, *batch(2))
    fresh.after_step(0.1)
    assert torch.equal(centres(head), centres(fresh))
    assert (head.step, head.skipped_steps) == (2, 1)


def test_an_embedding_that_is_not_finite_moves_nothing() -> None:
    head = make()
    before = centres(head)
    e_BD, id_B = batch()
    e_BD[3, 4] = torch.inf
    run(head, e_BD, id_B)
    head.after_step(0.1)
    assert torch.equal(centres(head), before)
    assert head.skipped_steps == 1


def test_evaluating_the_loss_leaves_nothing_behind() -> None:
    head = make()
    before = centres(head)
    with torch.no_grad():
        head(batch()[0][None], batch()[1])
    head.after_step(0.1)
    assert torch.equal(centres(head), before)


def test_looking_at_another_batch_before_the_step_does_no_harm() -> None:
    plain, disturbed = make("partial_fc", rate=0.3), make("partial_fc", rate=0.3)
    for head in (plain, disturbed):
        run(head, *batch(1))
        if head is disturbed:
            with torch.no_grad():
                head(batch(2)[0][None], batch(2)[1])
        head.after_step(0.1)
    assert_near(centres(disturbed), centres(plain), 1e-6)


def test_bfloat16_products_are_near_the_exact_gradients() -> None:
    head = make(products="bfloat16", momentum=0.0, weight_decay=0.0)
    before = centres(head)
    expected = dense(head, before, *batch())
    loss, grad_BD = run(head, *batch())
    head.after_step(1.0)
    assert_near(loss, expected[0], 1e-3)
    assert_near(grad_BD, expected[1], 3e-2)
    assert_near(before - centres(head), expected[2], 3e-2)


def test_identities_out_of_range_are_named() -> None:
    head = make()
    with pytest.raises(ValueError, match=r"identities of the batch go from -1 to 5; the head was made for 0"):
        head(torch.ones(1, 2, D), torch.tensor([5, -1]))


def test_wrong_options_are_refused_in_a_sentence() -> None:
    for options, words in (
        ({"optimizer": "lion"}, "optimizer of head 'full' is 'lion'; it must be one of sgd, adamw"),
        ({"placement": "cloud"}, "placement of head 'full' is 'cloud'"),
        ({"store_dtype": "int8"}, "store_dtype of head 'full' is 'int8'"),
        ({"weight_decay": -1.0}, "weight_decay of the class centres is -1.0; it must be 0 or more"),
        ({"momentum": 1.0}, "momentum of the class centres is 1.0; it must be from 0 to below 1"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov of the class centres is true and momentum 0"),
        ({"optimizer": "adamw", "betas": (0.9, 1.0)}, r"betas of the class centres are \(0.9, 1.0\); give"),
        ({"placement": "disk"}, "placement 'disk' needs a directory"),
        ({"products": "int8"}, "products of head 'full' is 'int8'; it must be one of auto, float32"),
        ({"chunk": -1}, "chunk is -1 classes"),
        ({"logits_mb": -1}, "logits_mb is -1; it must be positive, or 0 to keep no logits"),
    ):
        with pytest.raises(ValueError, match=words):
            make(**options)
