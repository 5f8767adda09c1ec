"""Places in the arithmetic where a wrong number does not show in a usual batch."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facescale import heads, margins
from facescale.evaluate.metrics import pair_accuracy
from facescale.heads.negative_sampler import NegativeSampler
from facescale.ops import StochasticRounding
from tests.heads.dense import dense_loss

C, D, B = 20, 16, 8


def make(name: str, **options: Any) -> heads.ClassHead:
    options = {"products": "float32", "weight_decay": 0.0, "momentum": 0.0, **options}
    return heads.build(name, C, D, margins.build("cosface", scale=16.0), **options)


def batch(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed + 100)
    return torch.randn(B, D, generator=generator), torch.randint(0, C - 1, (B,), generator=generator)


@pytest.mark.parametrize("name", ["full", "partial_fc"])
@pytest.mark.parametrize("products", ["float32", "bfloat16"])
def test_a_class_centre_of_zeros_is_a_class_with_cosine_0(name: str, products: str) -> None:
    head = make(name, products=products, **({"rate": 1.0} if name == "partial_fc" else {}))
    ids = torch.arange(C)
    rows = head.read_rows(ids)  # type: ignore[operator]
    rows[C - 1] = 0  # no image of the batch shows it
    head.write_rows(ids, rows)  # type: ignore[operator]
    e_BD, id_B = batch()
    e_BD.requires_grad_()
    out = head(e_BD[None], id_B)
    out.loss.backward()
    grad_BD, e_BD.grad = e_BD.grad, None
    expected = dense_loss(head.margin, e_BD, rows, id_B)
    expected.backward()
    tolerance = 1e-5 if products == "float32" else 3e-2
    torch.testing.assert_close(out.loss.detach(), expected.detach(), rtol=tolerance, atol=0)
    assert grad_BD is not None and e_BD.grad is not None
    assert (grad_BD - e_BD.grad).abs().max() <= tolerance * e_BD.grad.abs().max()
    head.after_step(1e-12)
    assert head.read_rows(ids).isfinite().all()  # type: ignore[operator]


@pytest.mark.parametrize("name", ["full", "partial_fc", "attfc", "f2c"])
def test_an_embedding_of_zeros_has_a_finite_loss_and_gradient(name: str) -> None:
    options: dict[str, Any] = {"size": C} if name in ("attfc", "f2c") else {}
    head = heads.build(name, C, D, margins.build("arcface"), **options)
    e_BD, id_B = batch()
    needs = head.needs
    for _ in range(2):
        q_VBD = e_BD.expand(needs.query_views, -1, -1).clone()
        q_VBD[:, 3] = 0
        q_VBD.requires_grad_()
        out = head(q_VBD, id_B, q_VBD.detach().expand(needs.key_views, -1, -1) if needs.key_views else None)
        out.loss.backward()
        assert out.loss.isfinite() and q_VBD.grad is not None and q_VBD.grad.isfinite().all()
        head.after_step(0.0)


def test_the_quality_of_adaface_is_cut_at_one() -> None:
    """Norms of which one lies far above the others: its z would be 0.333 (n - mean) / std = 1.2, and is 1."""
    margin = margins.build("adaface", scale=1.0, m=0.4, h=0.333, t_alpha=1.0)
    norm_B = torch.tensor([10.0] * 15 + [90.0])
    mean, std = float(norm_B.mean()), float(norm_B.std())
    assert 0.333 * (90 - mean) / std > 1.2
    cos_BC = torch.linspace(-0.3, 0.8, 16)[:, None].repeat(1, 3)
    out_BC = margin(cos_BC, torch.zeros(16, dtype=torch.int64), norm_B)
    for cos, norm, out in zip(cos_BC[:, 0].tolist(), norm_B.tolist(), out_BC[:, 0].tolist(), strict=True):
        z = min(1.0, max(-1.0, 0.333 * (norm - mean) / (std + 1e-3)))
        assert out == pytest.approx(math.cos(math.acos(cos) - 0.4 * z) - (0.4 + 0.4 * z), abs=1e-5)
    low = margin(cos_BC, torch.zeros(16, dtype=torch.int64), 100 - norm_B)[15, 0]  # the same below
    assert float(low) == pytest.approx(math.cos(math.acos(0.8) + 0.4) - 0.0, abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.75])
def test_rounding_goes_up_as_often_as_the_value_lies_above(dtype: torch.dtype, share: float) -> None:
    spacing = 2.0**-7 if dtype is torch.bfloat16 else 2.0**-10
    rounding = StochasticRounding(torch.device("cpu"), seed=1)
    for sign in (1, -1):
        value = torch.full((40_000,), sign * (1 + share * spacing))
        rounded = rounding.round(value, dtype).float()
        assert set(rounded.tolist()) == {sign * 1.0, sign * (1 + spacing)}
        up = (rounded.abs() > 1).float().mean()
        assert float(up) == pytest.approx(share, abs=0.015)  # six deviations


def test_rounding_is_a_function_of_seed_and_step() -> None:
    value = torch.rand(1000)

    def rounded(seed: int, step: int, drawn_before: int) -> Tensor:
        rounding = StochasticRounding(torch.device("cpu"), seed)
        for _ in range(drawn_before):
            rounding.round(value, torch.bfloat16)
        rounding.seek(step)
        return rounding.round(value, torch.bfloat16)

    assert torch.equal(rounded(0, 5, 0), rounded(0, 5, 3))
    assert not torch.equal(rounded(0, 5, 0), rounded(0, 6, 0))
    assert not torch.equal(rounded(0, 5, 0), rounded(1, 5, 0))


@pytest.mark.parametrize(("num_classes", "num_wanted"), [(40, 10), (3000, 300)])
def test_every_class_is_drawn_the_first_and_the_last_too(num_classes: int, num_wanted: int) -> None:
    steps, positives = 300, np.array([1, 2])
    sampler = NegativeSampler(num_classes, num_wanted, extra_positives=True, seed=0, shard=0)
    drawn = np.zeros(num_classes)
    for step in range(steps):
        drawn[sampler.select(positives, step)] += 1
    rate = num_wanted / (num_classes - len(positives))
    deviation = math.sqrt(steps * rate * (1 - rate))
    for number in (0, 3, num_classes - 1):
        assert abs(drawn[number] - steps * rate) < 5 * deviation, f"class {number}"
    assert drawn[positives].tolist() == [steps, steps]


@pytest.mark.parametrize("rule", ["ffc", "ffc_video", "insightface"])
def test_a_fold_has_no_say_in_its_own_threshold(rule: str) -> None:
    """All folds part at a cosine of 0.5, but for one whose genuine pairs are all below its impostors."""
    genuine = [0.7, 0.8, 0.9]
    impostor = [0.1, 0.2, 0.3]
    odd_genuine, odd_impostor = [0.02, 0.03, 0.04], [0.92, 0.94, 0.96]
    folds = [(genuine, impostor)] * 3 + [(odd_genuine, odd_impostor)]

    def embeddings(folds: list[tuple[list[float], list[float]]]) -> np.ndarray:
        cosines = [cos for pair in folds for part in pair for cos in part]
        return np.array([x for c in cosines for x in ([1.0, 0.0], [c, math.sqrt(1 - c * c)])])

    same = np.tile([True] * 3 + [False] * 3, 4)
    result = pair_accuracy(embeddings(folds), same, rule=rule, num_folds=4)
    alone = pair_accuracy(embeddings(folds[:3]), same[:18], rule=rule, num_folds=3)
    assert result.folds[3] == 0.0, "judged by the threshold of the others, all of its pairs are wrong"
    assert alone.folds.tolist() == [1.0, 1.0, 1.0]
    # another set of scores in the fold does not move its threshold
    folds[3] = ([0.4, 0.45, 0.5], [0.6, 0.65, 0.66])
    again = pair_accuracy(embeddings(folds), same, rule=rule, num_folds=4)
    assert again.thresholds[3] == pytest.approx(result.thresholds[3], abs=1e-9)


@pytest.mark.parametrize(("dtype", "lr"), [("bfloat16", 6e-7), ("float16", 7e-8)])
@pytest.mark.parametrize("name", ["full", "partial_fc"])
def test_half_precision_rows_take_steps_that_rounding_to_nearest_would_lose(
    name: str, dtype: str, lr: float
) -> None:
    """All values lie between two powers of two, so that the format's spacing is one number."""
    options = {"rate": 1.0} if name == "partial_fc" else {}
    exact, half = make(name, **options), make(name, store_dtype=dtype, **options)
    ids = torch.arange(C)
    generator = torch.Generator().manual_seed(3)
    start = torch.empty(C, D).uniform_(0.0085, 0.015, generator=generator)
    start *= torch.where(torch.rand(C, D, generator=generator) < 0.5, -1.0, 1.0)
    start = start.bfloat16().float()
    spacing = 2.0**-7 * (2.0**-7 if dtype == "bfloat16" else 2.0**-10)
    for head in (exact, half):
        head.write_rows(ids, start)  # type: ignore[operator]
    largest, before = 0.0, start
    for step in range(100):
        for head in (exact, half):
            e_BD, id_B = batch(step % 5)
            e_BD.requires_grad_()
            head(e_BD[None], id_B).loss.backward()
            head.after_step(lr)
        now = exact.read_rows(ids)  # type: ignore[operator]
        largest, before = max(largest, float((now - before).abs().max())), now
    assert largest < 0.45 * spacing, "to nearest, no value would ever move"
    moved = half.read_rows(ids) - start  # type: ignore[operator]
    expected = exact.read_rows(ids) - start  # type: ignore[operator]
    share = (moved * expected).sum() / expected.square().sum()
    assert 0.85 < float(share) < 1.15
    assert float((moved - expected).mean().abs()) < spacing, "up as often as down"  # five deviations
