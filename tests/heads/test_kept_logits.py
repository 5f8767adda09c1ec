"""Logits that exact softmax keeps: within the bound, as planned, and without an effect on results."""

from typing import Any

import pytest
import torch
from torch import Tensor

from facescale import heads, margins
from facescale.heads.centre_head import CentreHead

C, D, B, CHUNK = 1000, 8, 512, 100
WHOLE = C * B * 4  # 2 MB in float32


def make(margin: str = "cosface", **options: Any) -> CentreHead:
    built = margins.build(margin, **options.pop("of_margin", {}))
    head = heads.build("full", C, D, built, **{"products": "float32", "chunk": CHUNK, **options})
    assert isinstance(head, CentreHead)
    return head


def learn(head: CentreHead, parts: int = 1, look: bool = False) -> tuple[Tensor, Tensor]:
    """Gradients by the embeddings and rows, after three steps of some batches."""
    generator, grads = torch.Generator().manual_seed(4), []
    for _ in range(3):
        for _ in range(parts):
            q_VBD = torch.randn(1, B, D, generator=generator).requires_grad_()
            head(q_VBD, torch.randint(0, C, (B,), generator=generator)).loss.backward()
            assert q_VBD.grad is not None
            grads.append(q_VBD.grad)
        if look:  # at another batch, before the step
            head(torch.ones(1, B, D, requires_grad=True), torch.arange(B))
        head.after_step(0.1)
    return torch.cat(grads), head.read_rows(torch.arange(C))


@pytest.mark.parametrize("products", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("margin", "of_margin"),
    [
        ("cosface", {}),
        ("cosface", {"scale": 200.0}),
        ("curricular", {}),
        ("sphereface2", {}),
        ("uniface", {}),
        ("subcenter_arcface", {}),
    ],
)
def test_results_are_the_same_bit_by_bit_whatever_is_kept(
    margin: str, of_margin: dict[str, float], products: str
) -> None:
    expected = learn(make(margin, of_margin=of_margin, products=products, logits_mb=0))
    for kept in (1, 128):  # some of them, all of them
        found = learn(make(margin, of_margin=of_margin, products=products, logits_mb=kept))
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True)), kept


@pytest.mark.parametrize("margin", ["cosface", "uniface"])
@pytest.mark.parametrize(("parts", "look"), [(2, False), (1, True)])
def test_another_batch_takes_the_room(margin: str, parts: int, look: bool) -> None:
    expected = learn(make(margin, logits_mb=0), parts, look)
    found = learn(make(margin), parts, look)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize(("logits_mb", "expected"), [(0, 0), (1, 400 * B * 4), (2, 900 * B * 4), (3, WHOLE)])
@pytest.mark.parametrize("margin", ["cosface", "curricular"])
def test_what_is_kept_is_planned_to_the_byte(margin: str, logits_mb: int, expected: int) -> None:
    """In whole chunks of classes, and a chunk less of scratch where all are kept."""
    nothing, head = make(margin, logits_mb=0), make(margin, logits_mb=logits_mb)
    for one in (nothing, head):
        learn(one)
    planned = head.bytes_needed(B)
    assert planned.kept == expected <= logits_mb * 1e6
    scratch = CHUNK * B * 4 if expected == WHOLE else 0
    assert head.store.scratch.bytes - nothing.store.scratch.bytes == expected - scratch
    assert planned.transient - nothing.bytes_needed(B).transient == expected - scratch


def test_a_loss_without_gradient_keeps_nothing() -> None:
    head = make()
    with torch.no_grad():
        head(torch.randn(1, B, D), torch.arange(B))
    assert head.store.scratch.bytes < WHOLE


def test_exact_softmax_of_a_million_keeps_what_is_allowed() -> None:
    with torch.device("meta"):
        head = heads.build("full", 1_000_000, 512, "cosface", products="float32")
        more = heads.build("full", 1_000_000, 512, "cosface", products="float32", logits_mb=512)
    assert 120e6 < head.bytes_needed(128).kept <= 128e6
    assert more.bytes_needed(128).kept == 1_000_000 * 128 * 4
