"""The chunked softmax alone, against logits as one matrix in float64."""

import pytest
import torch
from torch import Tensor

from facescale import margins
from facescale.heads.chunked_softmax import ChunkedSoftmax
from facescale.heads.plain_softmax import PlainSoftmax, softmax_for
from facescale.heads.saved_batch import SavedBatch
from facescale.margins import Margin
from facescale.ops import Scratch

B, C, D = 5, 11, 4


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Unit embeddings, centres of different lengths, columns of the targets (-1: on another process)."""
    generator = torch.Generator().manual_seed(3)
    e_BD = torch.nn.functional.normalize(torch.randn(B, D, generator=generator))
    w_CD = torch.randn(C, D, generator=generator) * torch.rand(C, 1, generator=generator)
    return e_BD, w_CD, torch.tensor([0, 10, 4, -1, 4])


def prepared(margin: Margin, e_BD: Tensor, w_CD: Tensor, column_B: Tensor) -> SavedBatch:
    cos_B = (e_BD @ torch.nn.functional.normalize(w_CD).T)[torch.arange(B), column_B]
    target = margin.prepare(cos_B, torch.ones(B))
    zero_B = torch.zeros(B)
    return SavedBatch(e_BD, e_BD, target, column_B, zero_B, zero_B, zero_B, torch.empty(C, 1))


def chunks(w_CD: Tensor, size: int) -> list[tuple[int, Tensor]]:
    return [(start, w_CD[start : start + size]) for start in range(0, C, size)]


def make(margin: Margin, kind: type[ChunkedSoftmax] = ChunkedSoftmax) -> ChunkedSoftmax:
    return kind(margin, Scratch(torch.device("cpu")), torch.float32)


def dense(margin: Margin, saved: SavedBatch, w_CD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value (B,) of the negatives, and the leaves that it depends on, in float64."""
    e_BD = saved.e_BD.double().requires_grad_()
    w_CD = w_CD.double().requires_grad_()
    out_BC = margin.negatives(e_BD @ torch.nn.functional.normalize(w_CD).T, saved.target)
    hidden_BC = torch.arange(C) == saved.column_B[:, None]
    if margin.reduction == "softmax":
        return out_BC.masked_fill(hidden_BC, -torch.inf).logsumexp(1), e_BD, w_CD
    return out_BC.masked_fill(hidden_BC, 0.0).sum(1), e_BD, w_CD


NAMES = ["cosface", "curricular", "circle", "sphereface2"]
CASES = [*((name, ChunkedSoftmax) for name in NAMES), ("cosface", PlainSoftmax)]


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("size", [3, C])
def test_value_and_gradient_by_embeddings_equal_the_dense_ones(
    name: str, kind: type[ChunkedSoftmax], size: int
) -> None:
    e_BD, w_CD, column_B = drawn()
    margin = margins.build(name)
    saved, softmax = prepared(margin, e_BD, w_CD, column_B), make(margin, kind)
    with torch.no_grad():
        max_B, sum_B, grad_BD = softmax.forward(saved, chunks(w_CD, size), with_grad=True)
    is_softmax = margin.reduction == "softmax"
    value_B = max_B + sum_B.log() if is_softmax else sum_B
    expected_B, leaf_BD, _ = dense(margin, saved, w_CD)
    (expected_BD,) = torch.autograd.grad(expected_B.sum(), leaf_BD)
    torch.testing.assert_close(value_B.double(), expected_B.detach(), rtol=1e-5, atol=1e-5)
    grad_BD = grad_BD / sum_B[:, None] if is_softmax else grad_BD
    torch.testing.assert_close(grad_BD.double(), expected_BD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "kind"), CASES)
@pytest.mark.parametrize("num_kept", [0, 8, C])
def test_row_gradients_equal_the_dense_ones_of_a_weighted_sum(
    name: str, kind: type[ChunkedSoftmax], num_kept: int
) -> None:
    e_BD, w_CD, column_B = drawn()
    margin = margins.build(name)
    saved = prepared(margin, e_BD, w_CD, column_B)
    saved.kept_NB = torch.full((num_kept, B), torch.nan)
    saved.grad_value_B, saved.grad_target_B = torch.linspace(-1, 2, B), torch.linspace(3, -1, B)
    expected_B, _, leaf_CD = dense(margin, saved, w_CD)
    saved.value_B = expected_B.detach().float()
    own_BC = e_BD.double() @ torch.nn.functional.normalize(leaf_CD).T
    own_B = own_BC[torch.arange(B), column_B] * (column_B >= 0)
    total = (expected_B * saved.grad_value_B).sum() + (own_B * saved.grad_target_B).sum()
    (expected_CD,) = torch.autograd.grad(total, leaf_CD)
    softmax = make(margin, kind)
    with torch.no_grad():
        softmax.forward(saved, chunks(w_CD, 3), with_grad=False)  # keeps the norms
        found = [
            softmax.row_gradient(part_RD, first, softmax.pushes([saved], loss_scale=4.0), decay=0.5).clone()
            for first, part_RD in chunks(w_CD, 3)
        ]
    expected_CD = expected_CD / 4 + 0.5 * w_CD
    torch.testing.assert_close(torch.cat(found).double(), expected_CD, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [ChunkedSoftmax, PlainSoftmax])
def test_only_the_target_s_gradient_reaches_a_row_without_weight_as_a_negative(
    kind: type[ChunkedSoftmax],
) -> None:
    e_BD, w_CD, column_B = drawn()
    margin = margins.build("cosface")
    saved = prepared(margin, e_BD, w_CD, column_B)
    saved.grad_target_B = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0])
    softmax = make(margin, kind)
    with torch.no_grad():
        softmax.forward(saved, [(0, w_CD)], with_grad=False)
        found = softmax.row_gradient(w_CD, 0, softmax.pushes([saved], 1.0), decay=0.0)
    leaf_D = w_CD[10].double().requires_grad_()
    torch.nn.functional.cosine_similarity(leaf_D, e_BD[1].double(), dim=0).backward()
    torch.testing.assert_close(found[10].double(), leaf_D.grad, rtol=1e-5, atol=1e-6)
    assert not found[:10].any()


@pytest.mark.parametrize("kind", [ChunkedSoftmax, PlainSoftmax])
def test_nothing_is_left_of_the_norms_of_the_first_pass_when_rows_are_not_kept(
    kind: type[ChunkedSoftmax],
) -> None:
    e_BD, w_CD, column_B = drawn()
    margin = margins.build("cosface")
    kept, fresh = (prepared(margin, e_BD, w_CD, column_B) for _ in range(2))
    fresh.inverse_N1 = None
    results = []
    for saved in (kept, fresh):
        saved.grad_value_B = torch.ones(B)
        softmax = make(margin, kind)
        with torch.no_grad():
            softmax.forward(saved, chunks(w_CD, 4), with_grad=False)
            results.append(softmax.row_gradient(w_CD, 0, softmax.pushes([saved], 1.0), 0.0).clone())
    assert torch.equal(*results)


@pytest.mark.parametrize(
    ("name", "options", "plain"),
    [
        ("cosface", {}, True),
        ("cosface", {"scale": 65.0}, False),  # exp of a logit may be beyond float32
        ("cosface", {"interclass_filter": 0.4}, False),
        ("subcenter_arcface", {}, False),
        ("curricular", {}, False),
        ("sphereface2", {}, False),
    ],
)
def test_scaled_cosines_within_float32_take_the_shorter_way(
    name: str, options: dict[str, float], plain: bool
) -> None:
    margin = margins.build(name, **options)
    assert type(softmax_for(margin, Scratch(torch.device("cpu")), torch.float32)) is (
        PlainSoftmax if plain else ChunkedSoftmax
    )


def test_samples_that_have_no_negative_move_nothing_else() -> None:
    """The log-sum-exp over no class is minus infinity, and 0 times its exponential no number."""
    e_BD, w_CD, _ = drawn()
    margin = margins.build("cosface")
    saved = prepared(margin, e_BD, w_CD, torch.zeros(B, dtype=torch.int64))
    saved.value_B = torch.full((B,), -1e30)
    softmax = make(margin, PlainSoftmax)
    with torch.no_grad():
        _, sum_B, grad_BD = softmax.forward(saved, [(0, w_CD[:1])], with_grad=True)
        found_CD = softmax.row_gradient(w_CD[:1], 0, softmax.pushes([saved], 1.0), decay=0.0)
    assert not sum_B.any() and not grad_BD.any() and not found_CD.any()
