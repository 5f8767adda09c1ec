"""Rows are the same bit for bit wherever a training was interrupted and however often it was saved."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facescale import heads, margins
from facescale.distributed import Dist
from facescale.heads.centre_head import CentreHead

IDS, D, STEPS = 60, 8, 11
HEADS: dict[str, dict[str, Any]] = {
    "full": {},
    "sampled": {"rate": 0.3},
    "dense": {"rate": 0.3, "decay": "dense"},
    "dense, no momentum": {"rate": 0.3, "decay": "dense", "momentum": 0.0},
    "positives only": {"rate": 0.0},
}


def make(folder: Path, name: str, placement: str, **options: Any) -> CentreHead:
    torch.manual_seed(0)
    if placement == "disk":
        options["directory"] = folder / "disk"
    options |= {"placement": placement, "seed": 3, "weight_decay": 0.05, "products": "float32"}
    kind = "full" if name == "full" else "partial_fc"
    margin = margins.build("cosface", scale=16)
    head = heads.build(kind, IDS, D, margin, Dist(), **HEADS[name], **options)
    assert isinstance(head, CentreHead)
    return head


def run(head: CentreHead, steps: Iterable[int], batch: int, bad: int = -1) -> list[Tensor]:
    """Train on the batches of these steps; returns the gradients of the embeddings."""
    gradients = []
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        e_BD = torch.randn(batch, D, generator=generator).requires_grad_()
        id_B = torch.randint(0, IDS, (batch,), generator=generator)
        head(e_BD[None], id_B).loss.backward()
        if step == bad:
            head.skip_step()
        else:
            head.after_step(0.1 * (1 - step / STEPS))
        assert e_BD.grad is not None
        gradients.append(e_BD.grad)
    return gradients


def resumed(folder: Path, *args: Any, old: CentreHead, **options: Any) -> CentreHead:
    """A new head with the state that ``old`` saves."""
    old.save_rows(folder)
    head = make(folder, *args, **options)
    head.load_state_dict(old.state_dict())
    head.load_rows(folder)
    return head


@pytest.mark.parametrize("placement", ["device", "host", "disk"])
@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(("batch", "every", "stop", "dtype"), [(16, 3, 5, "float32"), (5, 2, 8, "bfloat16")])
def test_a_resumed_head_is_the_one_that_went_on(
    name: str, placement: str, batch: int, every: int, stop: int, dtype: str, tmp_path: Path
) -> None:
    """One is saved every few steps and goes on, the other never was, the third was stopped in between."""
    words, options = (name, placement), {"store_dtype": dtype}
    saved, never = (make(tmp_path / one, *words, **options) for one in ("saved", "never"))
    gradients = run(never, range(STEPS), batch, bad=6)
    for step in range(STEPS):
        (gradient,) = run(saved, [step], batch, bad=6)
        assert torch.equal(gradient, gradients[step]), step
        if step % every == 0:
            (tmp_path / f"saved/{step}").mkdir(parents=True, exist_ok=True)
            saved.save_rows(tmp_path / f"saved/{step}")
    first = make(tmp_path / "first", *words, **options)
    run(first, range(stop), batch, bad=6)
    (tmp_path / "again").mkdir(parents=True, exist_ok=True)
    again = resumed(tmp_path / "again", *words, old=first, **options)
    for step, gradient in zip(range(stop, STEPS), run(again, range(stop, STEPS), batch, bad=6), strict=True):
        assert torch.equal(gradient, gradients[step]), step
    everybody = torch.arange(IDS)
    expected = never.read_rows(everybody)
    assert torch.equal(saved.read_rows(everybody), expected)
    assert torch.equal(again.read_rows(everybody), expected)


@pytest.mark.parametrize("placement", ["device", "disk"])
def test_rows_that_wait_for_dense_decay_are_caught_up_where_another_head_reads_them(
    placement: str, tmp_path: Path
) -> None:
    old = make(tmp_path / "old", "dense", placement)
    run(old, range(STEPS), IDS)  # everybody moves at least once, so each has a record on disk
    everybody, folder = torch.arange(IDS), tmp_path / "saved"
    folder.mkdir(parents=True, exist_ok=True)
    old.save_rows(folder)
    order = torch.arange(IDS).flip(0)
    for name in ("full", "dense"):
        head = make(tmp_path / name, name, "device")
        head.inherit_rows(folder, order)
        torch.testing.assert_close(head.read_rows(everybody), old.read_rows(order))
    assert (folder / "centres" / "dense.safetensors").is_file()


def test_rows_are_read_as_they_were_last_written_not_as_they_were_fetched_ahead(tmp_path: Path) -> None:
    head = make(tmp_path, "sampled", "host")
    run(head, range(2), 8)
    ahead = torch.from_numpy(head.sampler.window(2))  # type: ignore[operator, union-attr]
    head.store.prefetch(ahead)
    block = head.store.rows_from(ahead, {"rows": torch.ones(len(ahead), D)})
    head.store.write_back(ahead, block)
    assert torch.equal(head.read_rows(ahead), torch.ones(len(ahead), D))


def test_damaged_products_are_one_sentence(tmp_path: Path) -> None:
    old = make(tmp_path / "old", "dense", "device")
    run(old, range(2), 4)
    old.save_rows(tmp_path)
    file = tmp_path / "centres" / "dense.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"dense.safetensors' is damaged; use an earlier checkpoint"):
        make(tmp_path / "new", "dense", "device").load_rows(tmp_path)


def test_rows_set_by_hand_decay_from_then_on(tmp_path: Path) -> None:
    head = make(tmp_path, "dense", "device")
    run(head, range(3), 4)
    rows_ND = torch.ones(2, D)
    head.write_rows(torch.tensor([7, 9]), rows_ND)
    assert torch.equal(head.read_rows(torch.tensor([7, 9])), rows_ND)
