"""Rows that a compiled loop moves in place are the rows that torch's operators make."""

from typing import Any

import pytest
import torch

from facescale import compiled, heads, margins
from facescale.centres import store
from facescale.dist import Dist
from facescale.heads.centre_head import CentreHead

C, D, B = 300, 48, 16

CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("full", "cosface", {"products": "float32"}),
    ("full", "curricular", {"products": "bfloat16"}),
    ("full", "subcenter_arcface", {"products": "float32"}),
    ("partial_fc", "cosface", {"products": "float32", "rate": 0.3}),
    ("partial_fc", "cosface", {"products": "bfloat16", "rate": 0.3}),
    ("partial_fc", "subcenter_arcface", {"products": "bfloat16", "num_negatives": 40}),
]


def make(name: str, margin: str, **options: Any) -> CentreHead:
    torch.manual_seed(0)
    head = heads.build(name, C, D, margins.build(margin), Dist(), chunk=50, weight_decay=0.01, **options)
    assert isinstance(head, CentreHead)
    return head


def learn(head: CentreHead, parts: int) -> torch.Tensor:
    """Rows and momentum after three steps, each of some batches."""
    head.loss_scale = 4.0
    for step in range(3):
        for part in range(parts):
            generator = torch.Generator().manual_seed(10 * step + part)
            q_VBD = torch.randn(1, B, D, generator=generator).requires_grad_()
            (4 * head(q_VBD, torch.randint(0, C, (B,), generator=generator)).loss).backward()
        head.after_step(0.01)
    assert head.store.memory is not None
    return torch.stack([head.store.memory.tensors[name] for name in ("rows", "momentum")])


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(("name", "margin", "options"), CASES)
def test_moved_in_place_or_copied_rows_are_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, margin: str, options: dict[str, Any], parts: int
) -> None:
    ours = make(name, margin, **options)
    assert ours.store.fused is not None
    monkeypatch.setattr(store, "available", lambda: False)  # as where numba is not installed
    plain = make(name, margin, **options)
    assert plain.store.fused is None
    expected, rows = learn(plain, parts), learn(ours, parts)
    loose = 2e-2 if options["products"] == "bfloat16" else 2e-5
    torch.testing.assert_close(rows, expected, rtol=0, atol=loose * float(expected[1].abs().max()))
    assert not torch.equal(rows[0], make(name, margin, **options).store.memory.tensors["rows"])  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "options",
    [{"momentum": 0.0}, {"optimiser": "adamw"}, {"store_dtype": "bfloat16"}, {"placement": "host"}],
)
def test_other_optimisers_types_and_places_copy_rows(options: dict[str, Any]) -> None:
    head = make("full", "cosface", **options)
    assert head.store.fused is None and not head.store.fuses


def test_several_threads_move_what_one_moves() -> None:
    one = learn(make("partial_fc", "cosface", rate=0.5, products="float32"), 1)
    torch.set_num_threads(3)
    try:
        three = learn(make("partial_fc", "cosface", rate=0.5, products="float32"), 1)
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(three, one, rtol=1e-4, atol=1e-5)


def test_numba_is_looked_for_without_being_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.importlib.util, "find_spec", lambda name: None)
    assert not compiled.available()
