"""Partial FC against the dense loss over its sample, and what happens to rows that are not sampled."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facescale import heads, margins
from facescale.heads.centre_head import CentreHead
from tests.heads.dense import dense_loss
from tests.heads.test_full import B, C, D, assert_near, batch, centres, run


def make(margin: str = "cosface", **options: Any) -> CentreHead:
    head = heads.build(
        "partial_fc", C, D, margins.build(margin), **{"products": "float32", "chunk": 20, **options}
    )
    assert isinstance(head, CentreHead)
    return head


def classes_of(head: CentreHead) -> Tensor:
    classes = head._pending[0].classes
    assert classes is not None
    return classes


@pytest.mark.parametrize("margin", ["cosface", "curricular", "subcenter_arcface", "sphereface2", "magface"])
def test_the_loss_is_the_dense_one_over_the_sample(margin: str) -> None:
    head = make(margin, rate=0.3, momentum=0.0, weight_decay=0.0)
    margin_64 = margins.build(margin).double()
    margin_64.load_state_dict(head.margin.state_dict())
    before = centres(head)
    e_BD, id_B = batch()
    loss, grad_BD = run(head, e_BD, id_B)
    classes = classes_of(head)
    assert len(classes) == int(0.3 * C)
    head.after_step(1.0)
    e_64, w_64 = e_BD.double().requires_grad_(), before.double().requires_grad_()
    expected = dense_loss(margin_64, e_64, w_64, id_B, classes)
    expected.backward()
    assert e_64.grad is not None and w_64.grad is not None
    assert_near(loss, expected.detach(), 1e-5)
    assert_near(grad_BD, e_64.grad, 1e-5)
    assert_near(before - centres(head), w_64.grad, 1e-5)


def test_rows_that_are_not_sampled_rest() -> None:
    head = make(rate=0.2)
    before = centres(head)
    run(head, *batch(1))
    classes = classes_of(head)
    head.after_step(0.1)
    moved = (centres(head) != before).any(1)
    assert moved[classes].all()
    assert moved.sum() == len(classes)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("rate", [0.1, [0.1, 1.0, 0.3]])
def test_dense_decay_equals_torch_sgd_over_the_whole_matrix(nesterov: bool, rate: Any) -> None:
    head = make(rate=rate, decay="dense", weight_decay=0.05, nesterov=nesterov)
    w_CD = torch.nn.Parameter(centres(head).double())
    torch_sgd = torch.optim.SGD([w_CD], lr=0.1, momentum=0.9, weight_decay=0.05, nesterov=nesterov)
    for step in range(12):
        lr = 0.02 / (1 + step)
        e_BD, id_B = batch(step)
        head.begin_step(step / 12, 1.0, 1.0)
        run(head, e_BD, id_B)
        torch_sgd.zero_grad()
        dense_loss(head.margin, e_BD.double(), w_CD, id_B, head._pending[0].classes).backward()
        torch_sgd.param_groups[0]["lr"] = lr
        torch_sgd.step()
        head.after_step(lr)
        if step == 5:
            head.store.flush()  # as a checkpoint does
    head.store.flush()
    assert_near(centres(head), w_CD.detach(), 1e-5)


def test_rate_zero_compares_with_the_classes_of_the_batch_only() -> None:
    head = make(rate=0.0)
    run(head, *batch())
    assert classes_of(head).tolist() == batch()[1].unique().tolist()


def test_a_number_of_negatives_comes_on_top() -> None:
    head = make(num_negatives=40)
    run(head, *batch())
    assert len(classes_of(head)) == 40 + len(batch()[1].unique())


def test_rate_one_equals_the_full_head() -> None:
    full = heads.build("full", C, D, margins.build("cosface"), products="float32")
    partial = make(rate=1.0)
    results = [run(head, *batch()) for head in (full, partial)]  # type: ignore[arg-type]
    assert_near(results[1][0], results[0][0], 1e-6)
    assert_near(results[1][1], results[0][1], 1e-5)


def test_samples_change_from_step_to_step_and_a_resumed_head_draws_the_same() -> None:
    head = make(rate=0.1)
    drawn = []
    for step in range(3):
        run(head, *batch(step))
        drawn.append(classes_of(head).tolist())
        head.after_step(0.1)
    assert drawn[0] != drawn[1]
    resumed = make(rate=0.1)
    resumed.load_state_dict({**resumed.state_dict(), "_extra_state": {"step": 2, "skipped_steps": 0}})
    run(resumed, *batch(2))
    assert classes_of(resumed).tolist() == drawn[2]


@pytest.mark.parametrize("filtered", [0.3, 0.0])
def test_likely_label_noise_leaves_the_softmax(filtered: float) -> None:
    torch.manual_seed(0)
    w_CD = torch.randn(C, D)
    w_CD[100] = w_CD[7] + 0.1 * torch.randn(D)  # identity 100 is identity 7 again
    losses = []
    for rows in (w_CD, w_CD.index_copy(0, torch.tensor([100]), -w_CD[7:8])):
        head = heads.build(
            "partial_fc",
            C,
            D,
            margins.build("cosface", interclass_filter=filtered),
            rate=1.0,
            products="float32",
        )
        head.write_rows(torch.arange(C), rows)
        losses.append(head((w_CD[7:8] + 0.0).repeat(1, 2, 1), torch.tensor([7, 7])).loss)
    assert torch.allclose(losses[0], losses[1], atol=1e-3) == (filtered > 0)


@pytest.mark.parametrize("placement", ["host", "disk"])
@pytest.mark.parametrize("head_name", ["full", "partial_fc"])
@pytest.mark.parametrize("store_dtype", ["float32", "bfloat16"])
def test_where_rows_are_does_not_change_what_they_become(
    placement: str, head_name: str, store_dtype: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"products": "float32", "chunk": 20, "store_dtype": store_dtype}
    if head_name == "partial_fc":
        options["rate"] = 0.3
    margin = "subcenter_arcface"
    device = heads.build(head_name, C, D, margin, **options)
    directory = {"directory": str(tmp_path)} if placement == "disk" else {}
    other = heads.build(head_name, C, D, margin, placement=placement, **directory, **options)
    assert isinstance(device, CentreHead) and isinstance(other, CentreHead)
    exact = store_dtype == "float32"  # else rounding is random
    for step in range(6):
        results = [run(head, *batch(step % 3)) for head in (device, other)]
        assert abs(results[1][0] - results[0][0]) < (1e-5 if exact else 0.05)
        for head in (device, other):
            head.after_step(0.01)
    assert_near(centres(other), centres(device), 1e-5 if exact else 2e-2)


def test_adamw_counts_the_steps_of_each_row(tmp_path: Path) -> None:
    head = make(rate=0.1, optimizer="adamw", weight_decay=0.0, placement="disk", directory=tmp_path)
    before = centres(head)
    for step in range(5):
        run(head, *batch(step))
        classes = classes_of(head)
        moved = centres(head)[classes] != before[classes]
        old = moved.any(1)
        at_start = centres(head)[classes]
        head.after_step(0.01)
        change = (centres(head)[classes] - at_start).abs()
        first = change[~old]  # the first step of a row is lr long where the gradient is not negligible
        assert step == 0 or len(first)
        assert ((first - 0.01).abs() < 1e-4).float().mean() > 0.9


def test_wrong_options_are_refused_in_a_sentence() -> None:
    for options, words in (
        ({"rate": 0.1, "num_negatives": 5}, "partial_fc got rate=0.1 and num_negatives=5; give one of them"),
        ({"rate": 1.5}, "rate of partial_fc is 1.5; it is a share from 0 to 1"),
        ({"num_negatives": 0}, "num_negatives of partial_fc is 0; it must be positive"),
        ({"decay": "some"}, "decay of head 'partial_fc' is 'some'; it must be one of sampled, dense"),
        ({"decay": "dense", "optimizer": "adamw"}, "decay 'dense' is known for optimizer 'sgd' only"),
    ):
        with pytest.raises(ValueError, match=words):
            make(**options)


def test_identities_that_are_nobody_cost_the_floor_under_compat() -> None:
    head = make(compat=True, rate=1.0)
    loss, grad_BD = run(head, batch()[0], torch.full((B,), -1))
    assert_near(loss, torch.tensor(69.0776), 1e-5)
    assert grad_BD.abs().max() > 0  # they are still pushed away from all classes


def test_several_rates_take_turns_in_equal_parts_of_the_training() -> None:
    head = make(rate=[0.1, 0.3, 1.0])
    numbers = []
    for step in range(6):
        head.begin_step(step / 6, 1.0, 1.0)
        run(head, *batch(step))
        classes = head._pending[0].classes
        numbers.append(C if classes is None else len(classes))
        head.after_step(0.1)
    assert numbers == [int(0.1 * C)] * 2 + [int(0.3 * C)] * 2 + [C] * 2


@pytest.mark.parametrize("rate", [1.5, -0.1, [0.1, 2.0], []])
def test_a_rate_that_is_no_share_is_refused(rate: Any) -> None:
    with pytest.raises(ValueError, match="it is a share from 0 to 1"):
        make(rate=rate)


def test_memory_is_planned_for_the_rate_that_takes_most() -> None:
    needed = [
        make(rate=rate, placement="host").bytes_needed(8).transient for rate in (0.1, 1.0, [0.1, 1.0, 0.1])
    ]
    assert max(needed[:2]) == needed[2] != min(needed[:2])
