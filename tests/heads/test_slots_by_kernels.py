"""AttFC and F2C whose negatives come from Triton's kernels (interpreted) against those in chunks."""

from types import ModuleType
from typing import Any

import pytest
import torch

from facescale import heads
from facescale.heads import slot_head
from facescale.heads.slot_head import SlotHead
from tests.compiled import interpreted
from tests.heads.slot_heads import DIM, NUM_IDS, draw, step

BATCH = 6
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("attfc", {}),
    ("attfc", {"fresh": True}),
    ("attfc", {"compat": True}),
    ("f2c", {}),
    ("f2c", {"chunk": 5, "refresh": 0.5}),
    ("f2c", {"rows_per_id": 1, "compat": True}),
]


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return interpreted("class_softmax")


def make(
    name: str, options: dict[str, Any], kernels: ModuleType | None, monkeypatch: pytest.MonkeyPatch
) -> SlotHead:
    monkeypatch.setattr(slot_head, "kernels_for", lambda device, products, dim: kernels)
    head = heads.build(name, NUM_IDS, DIM, "cosface", size=12, products="float32", **options)
    assert isinstance(head, SlotHead)
    return head


@pytest.mark.parametrize(("name", "options"), VARIANTS)
def test_a_head_learns_the_same(
    name: str, options: dict[str, Any], kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_kernels, in_chunks = (make(name, options, module, monkeypatch) for module in (kernels, None))
    assert by_kernels.kernels is kernels and in_chunks.kernels is None
    for seed in range(4):
        q_VBD, ids, k_VBD = draw(seed, 2, BATCH)
        given = (q_VBD, ids, k_VBD) if name == "f2c" else (q_VBD[:1], ids[0], k_VBD)
        (loss, grad), (other, other_grad) = (step(head, *given) for head in (by_kernels, in_chunks))
        torch.testing.assert_close(loss, other, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(grad, other_grad, rtol=1e-3, atol=1e-5 * float(other_grad.abs().max()))
    torch.testing.assert_close(by_kernels.rows, in_chunks.rows, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "margin"), [({"unique": True, "fresh": True}, "cosface"), ({}, "curricular")]
)
def test_what_the_kernels_do_not_compute_goes_through_chunks(
    options: dict[str, Any], margin: str, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slot_head, "kernels_for", lambda device, products, dim: kernels)
    head = heads.build("attfc", NUM_IDS, DIM, margin, size=12, **options)
    assert isinstance(head, SlotHead) and head.kernels is None


@pytest.mark.parametrize("name", ["attfc", "f2c"])
def test_memory_of_the_logits_is_not_planned(
    name: str, kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_kernels = make(name, {}, kernels, monkeypatch).bytes_needed(BATCH)
    in_chunks = make(name, {}, None, monkeypatch).bytes_needed(BATCH)
    assert by_kernels.device == in_chunks.device
    partial_sums = kernels.forward_bytes(BATCH, DIM)
    share = 0.75 if name == "f2c" else 1.0
    places = 16 * 2 * 12 if name == "f2c" else 0  # which row is which class
    assert by_kernels.transient - in_chunks.transient == partial_sums + places - int(5 * share * 12 * BATCH)
