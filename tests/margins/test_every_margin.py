"""What holds for every margin in MARGINS: dense equals chunked, exact gradients, finite values, state."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from facescale import margins
from facescale.margins import MARGINS, Margin, TargetLogits

BATCH, CLASSES = 6, 11

# every margin with its defaults, and the options that take another path through it
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((name, {}) for name in MARGINS),
    *((name, {"compat": True}) for name in MARGINS),
    *((name, {"interclass_filter": 0.4}) for name in MARGINS),
    *(
        (name, {"interclass_filter": 0.4, "compat": True})
        for name in ("cosface", "curricular", "sphereface2")
    ),
    ("arcface", {"fallback": False}),
    ("combined", {"m1": 1.4, "m2": 0.2, "m3": 0.1}),
    ("mv_softmax", {"form": "arc"}),
    ("mv_softmax", {"form": "arc", "compat": True}),
    ("magface", {"easy_margin": False}),
    ("elastic_arc", {"plus": True}),
    ("elastic_arc", {"plus": True, "compat": True}),
    ("elastic_cos", {"plus": True}),
    ("robustface", {"noise": 0.3}),
]


def over(variants: list[tuple[str, dict[str, Any]]]) -> pytest.MarkDecorator:
    ids = [
        "-".join([name, *(f"{key}={value}" for key, value in options.items())]) for name, options in variants
    ]
    return pytest.mark.parametrize(("name", "options"), variants, ids=ids)


each_variant = over(VARIANTS)
# Circle's weights carry no gradient by definition; these releases are straight-through (tested by hand)
DETACHED = ("arcface", "combined", "subcenter_arcface", "sphereface", "sphereface2")
exact_gradient = over(
    [(n, o) for n, o in VARIANTS if n != "circle" and not (o.get("compat") and n in DETACHED)]
)
unfiltered = over([(n, o) for n, o in VARIANTS if "interclass_filter" not in o])


def batch(seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines with easy, hard and very wrong target classes, targets and norms."""
    generator = torch.Generator().manual_seed(seed)
    cos_BC = 1.6 * torch.rand(BATCH, CLASSES, generator=generator, dtype=dtype) - 0.8
    target_B = torch.randint(CLASSES, (BATCH,), generator=generator)
    cos_BC[torch.arange(BATCH), target_B] = torch.tensor([0.95, 0.7, 0.3, 0.02, -0.4, -0.93], dtype=dtype)
    norm_B = 5 + 120 * torch.rand(BATCH, generator=generator, dtype=dtype)
    return cos_BC, target_B, norm_B


def make(name: str, options: dict[str, Any], trained: int = 3) -> Margin:
    """A float64 margin with ``trained`` steps behind it, so that running statistics have moved."""
    margin = margins.build(name, **options).double()
    margin.set_num_negatives(CLASSES - 1)
    for step in range(trained):
        margin(*batch(100 + step))
    return margin


def reduced(margin: Margin, out_BC: Tensor, target_B: Tensor) -> Tensor:
    """Per-sample loss of dense logits (or losses), 0 where there is no target."""
    if margin.reduction == "softmax":
        return F.cross_entropy(out_BC, target_B, reduction="none", ignore_index=-1)
    return out_BC.sum(1) * (target_B >= 0)


def chunks(cos_BC: Tensor, size: int = 4) -> Iterator[tuple[int, Tensor]]:
    return ((start, cos_BC[:, start : start + size]) for start in range(0, cos_BC.shape[1], size))


def chunked_loss(margin: Margin, cos_BC: Tensor, target_B: Tensor, norm_B: Tensor) -> Tensor:
    """Per-sample loss computed as heads do: target cosines first, then chunks without the target cell.

    The chunks get a detached ``TargetLogits``: a gradient from ``negatives`` to it would be missing here.
    """
    target = margin.prepare(cos_BC.gather(1, target_B[:, None])[:, 0], norm_B)
    fixed = TargetLogits(target.cos_B.detach(), {key: value.detach() for key, value in target.extra.items()})
    value_B = margin.target(target)
    softmax = margin.reduction == "softmax"
    parts = []
    for start, cos_Bc in chunks(cos_BC):
        out_Bc = margin.negatives(cos_Bc, fixed)
        mine_Bc = target_B[:, None] == torch.arange(start, start + cos_Bc.shape[1])
        out_Bc = out_Bc.masked_fill(mine_Bc, -torch.inf if softmax else 0.0)
        parts.append(out_Bc.logsumexp(1) if softmax else out_Bc.sum(1))
    if softmax:
        return torch.stack([value_B, *parts]).logsumexp(0) - value_B
    return value_B + torch.stack(parts).sum(0)


@each_variant
def test_chunked_evaluation_equals_dense_in_loss_and_gradient(name: str, options: dict[str, Any]) -> None:
    results = []
    for how in ("dense", "chunked"):
        margin = make(name, options)
        cos_BC, target_B, norm_B = batch()
        cos_BC.requires_grad_()
        norm_B.requires_grad_()
        if how == "dense":
            loss = reduced(margin, margin(cos_BC, target_B, norm_B), target_B).mean()
        else:
            loss = chunked_loss(margin, cos_BC, target_B, norm_B).mean()
        wanted = [cos_BC, norm_B, *margin.parameters()]
        grads = torch.autograd.grad(loss, wanted, allow_unused=True)
        results.append(
            [loss, *(torch.zeros_like(w) if g is None else g for w, g in zip(wanted, grads, strict=True))]
        )
    for dense, chunked in zip(*results, strict=True):
        torch.testing.assert_close(chunked, dense, rtol=1e-9, atol=1e-11)


@each_variant
def test_a_chunk_computed_again_after_a_later_step_is_the_same(name: str, options: dict[str, Any]) -> None:
    margin = make(name, options)
    cos_BC, target_B, norm_B = batch()
    target = margin.prepare(cos_BC.gather(1, target_B[:, None])[:, 0], norm_B)
    before = [margin.target(target), *(margin.negatives(c, target) for _, c in chunks(cos_BC))]
    margin(*batch(7))
    for parameter in margin.parameters():
        parameter.data += 1
    after = [margin.target(target), *(margin.negatives(c, target) for _, c in chunks(cos_BC))]
    for x, y in zip(before, after, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=0)


@exact_gradient
def test_gradients_are_those_of_the_function(name: str, options: dict[str, Any]) -> None:
    margin = make(name, options).eval()
    cos_BC, target_B, norm_B = batch()
    cos_BC.requires_grad_()
    norm_B.requires_grad_(name == "magface")  # AdaFace reads the norm without gradient

    def loss(cos_BC: Tensor, norm_B: Tensor) -> Tensor:
        return reduced(margin, margin(cos_BC, target_B, norm_B), target_B)

    assert torch.autograd.gradcheck(loss, (cos_BC, norm_B), eps=1e-7, atol=1e-4)


@each_variant
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_inputs_give_finite_values_and_gradients(
    name: str, options: dict[str, Any], dtype: torch.dtype
) -> None:
    margin = margins.build(name, **options)
    margin.set_num_negatives(CLASSES - 1)
    cos_BC = torch.linspace(-1, 1, BATCH * CLASSES).reshape(BATCH, CLASSES).contiguous()
    target_B = torch.tensor([0, 3, -1, 4, 5, CLASSES - 1])
    cos_BC[[1, 3, 4], [3, 4, 5]] = torch.tensor([1.0, -1.0, 1 - 6e-8])
    cos_BC[0, :4] = torch.tensor([1.001, -1.001, 1.0, -1.0])
    norm_B = torch.tensor([0.0, 1e-6, 1.0, 30.0, 1e4, 100.0], dtype=dtype, requires_grad=True)
    cos_BC = cos_BC.to(dtype).requires_grad_()
    for _ in range(2):
        out_BC = margin(cos_BC, target_B, norm_B)
        assert out_BC.dtype == torch.float32
        loss = reduced(margin, out_BC, target_B).mean()
        loss.backward()
        assert loss.isfinite()
    for x in (cos_BC, norm_B, *margin.parameters()):
        assert x.grad is None or x.grad.isfinite().all()
    assert all(value.isfinite().all() for value in margin.state_dict().values())


@each_variant
def test_rows_without_a_target_do_not_touch_the_other_rows(name: str, options: dict[str, Any]) -> None:
    cos_BC, target_B, norm_B = batch()
    outs = []
    for seed in (5, 6):
        row = batch(seed)[0][:1]
        target = torch.cat([target_B, torch.tensor([-1])])
        margin = make(name, options)
        outs.append(margin(torch.cat([cos_BC, row]), target, torch.cat([norm_B, norm_B[:1]]))[:-1])
    assert torch.equal(outs[0], outs[1])


@each_variant
def test_state_is_complete_a_loaded_margin_goes_on_alike(name: str, options: dict[str, Any]) -> None:
    margin = make(name, options, trained=4)
    fresh = margins.build(name, **options).double()
    fresh.load_state_dict(margin.state_dict())
    for step in range(2):
        assert torch.equal(margin(*batch(step)), fresh(*batch(step)))


@each_variant
def test_evaluation_changes_no_state(name: str, options: dict[str, Any]) -> None:
    margin = make(name, options).eval()
    before = {key: value.clone() for key, value in margin.state_dict().items()}
    margin(*batch(3))
    margin.batch_term(torch.randn(4, 8), torch.tensor([0, 0, 1, 2]))
    assert all(torch.equal(value, before[key]) for key, value in margin.state_dict().items())


@each_variant
def test_a_step_with_bad_embeddings_leaves_no_mark_on_the_state(name: str, options: dict[str, Any]) -> None:
    margin = make(name, options)
    cos_BC, target_B, norm_B = batch()
    margin(cos_BC * torch.nan, target_B, norm_B * torch.nan)
    margin.batch_term(torch.full((4, 8), torch.nan), torch.tensor([0, 0, 1, 2]))
    assert all(value.isfinite().all() for value in margin.state_dict().values())
    assert not margin(cos_BC, target_B, norm_B).isnan().any()


@unfiltered
def test_strength_zero_is_no_margin(name: str, options: dict[str, Any]) -> None:
    margin = make(name, options)
    margin.strength = 0.0
    cos_BC, target_B, norm_B = batch()
    if margin.reduction == "softmax":
        # AdaFace's release clips cosines at 0.999; all of the batch's are below
        torch.testing.assert_close(margin(cos_BC, target_B, norm_B), margin.scale * cos_BC)
    else:
        bare = margins.build(name, **(options | {"m": 0.0})).double()
        bare.load_state_dict(margin.state_dict())
        torch.testing.assert_close(margin(cos_BC, target_B, norm_B), bare(cos_BC, target_B, norm_B))


@pytest.mark.parametrize("name", [name for name in MARGINS if MARGINS[name] is not margins.angular.Circle])
def test_strength_lies_between_no_margin_and_the_whole(name: str) -> None:
    values = []
    for strength in (0.0, 0.5, 1.0):
        margin = make(name, {})
        margin.strength = strength
        cos_BC, target_B, norm_B = batch()
        values.append(reduced(margin, margin(cos_BC, target_B, norm_B), target_B).mean().item())
    assert values[0] < values[1] < values[2]


@pytest.mark.parametrize("name", MARGINS)
def test_a_wrong_name_or_option_is_answered_with_the_near_one(name: str) -> None:
    with pytest.raises(ValueError, match=f"unknown margin '{name}x'.*did you mean '{name}'"):
        margins.build(name + "x")
    with pytest.raises(ValueError, match=f"margin '{name}' has no option 'scal'.*did you mean 'scale'"):
        margins.build(name, scal=3)


@pytest.mark.parametrize("name", MARGINS)
def test_scale_and_filter_are_checked(name: str) -> None:
    with pytest.raises(ValueError, match="margin scale is 0; it must be positive"):
        margins.build(name, scale=0)
    with pytest.raises(ValueError, match=r"interclass_filter is 1\.5; it is a cosine from 0"):
        margins.build(name, interclass_filter=1.5)


@pytest.mark.parametrize("name", MARGINS)
def test_plain_negatives_is_said_only_of_margins_that_scale(name: str) -> None:
    margin = make(name, {})
    cos_BC, target_B, norm_B = batch()
    target = margin.prepare(cos_BC.gather(1, target_B[:, None])[:, 0], norm_B)
    plain = torch.equal(margin.negatives(cos_BC, target), margin.scale * cos_BC)
    assert plain == margin.plain_negatives
