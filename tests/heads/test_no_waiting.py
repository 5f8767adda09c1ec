"""No head reads from the device in a step: on the meta device, which has no values, a read raises."""

from typing import Any

import pytest
import torch

from benchmarks.gpu_counts import META, Batch, Dispatched, meta_head, steps
from facescale.heads import ClassHead
from facescale.margins import MARGINS

SIZES = Batch(num_ids=300, embedding_size=16, images=32)
CENTRES: list[tuple[str, dict[str, Any]]] = [
    ("full", {"chunk": 64}),
    ("full", {"optimizer": "adamw"}),
    ("partial_fc", {"rate": 0.3, "chunk": 64}),
    ("partial_fc", {"rate": 0.3, "compat": True}),
    ("partial_fc", {"rate": 0.3, "store_dtype": "bfloat16"}),
]
SLOTS: list[tuple[str, dict[str, Any]]] = [
    ("attfc", {}),
    ("attfc", {"unique": True, "fresh": True, "refresh": 0.5}),
    ("attfc", {"compat": True}),
    ("f2c", {"share": 0.1}),
    ("f2c", {"share": 0.1, "refresh": 0.3, "both": True}),
    ("f2c", {"share": 0.1, "rows_per_id": 1, "compat": True}),
]


def of_step(name: str, options: dict[str, Any], margin: str = "arcface") -> Dispatched:
    return steps(meta_head(name, SIZES, margin, products="bfloat16", **options), SIZES.images)


@pytest.mark.parametrize(("name", "options"), CENTRES + SLOTS)
def test_a_step_waits_for_nothing(name: str, options: dict[str, Any]) -> None:
    seen = of_step(name, options)
    assert seen.total > 0 and seen.copies > 0
    assert seen.waiting == []


@pytest.mark.parametrize("margin", MARGINS)
def test_no_margin_makes_a_step_wait(margin: str) -> None:
    assert of_step("partial_fc", {"rate": 0.3}, margin).waiting == []


@pytest.mark.parametrize("name", ["full", "partial_fc", "attfc", "f2c"])
def test_batches_of_a_step_add_up_without_waiting(name: str) -> None:
    head = meta_head(name, SIZES, **({"share": 0.1} if name in ("attfc", "f2c") else {}))
    with Dispatched() as seen:
        for _ in range(2):
            forward_and_backward(head)
        head.finish_step(0.1)
    assert seen.waiting == []


def test_what_reads_from_the_device_is_found() -> None:
    head = meta_head("partial_fc", SIZES)
    forward_and_backward(head)
    with pytest.raises(RuntimeError, match="meta tensors"):
        head.after_step(0.1)  # asks whether the step is finite


def test_a_copy_that_the_host_waits_for_is_found() -> None:
    with Dispatched() as seen:
        torch.zeros(3).to(META)
        torch.zeros(3).to(META, non_blocking=True)
    assert (seen.copies, seen.waiting) == (2, ["_to_copy"])


def forward_and_backward(head: ClassHead) -> None:
    needs, size = head.needs, SIZES.embedding_size
    q_VBD = torch.empty(needs.query_views, SIZES.images, size, device=META, requires_grad=True)
    k_VBD = torch.empty(max(1, needs.key_views), SIZES.images, size, device=META)
    ids = torch.arange(SIZES.images).expand(2, -1)
    head(q_VBD, ids if needs.identity_pairs else ids[0], k_VBD if needs.key_views else None).loss.backward()
