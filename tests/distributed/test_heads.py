"""Heads on several processes equal one process: loss, gradients, centres; vetoes and checkpoints."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facescale import heads, margins
from facescale.distributed import Dist
from facescale.heads.centre_head import CentreHead
from tests.distributed.spawn import run_processes

C, D, B = 37, 16, 12  # B images over all processes: 12, 6 and 4 on each


def make(
    dist: Dist, name: str = "full", margin: str = "cosface", num_ids: int = C, **options: Any
) -> CentreHead:
    torch.manual_seed(0)
    built = margins.build(margin)
    head = heads.build(
        name, num_ids, D, built, dist, **{"products": "float32", "chunk": 5, "seed": 3, **options}
    )
    assert isinstance(head, CentreHead)
    return head


def part(dist: Dist, step: int) -> tuple[Tensor, Tensor]:
    """This process's images of a step's batch."""
    generator = torch.Generator().manual_seed(step)
    e_GD, id_G = torch.randn(B, D, generator=generator) * 4, torch.randint(0, C, (B,), generator=generator)
    start, stop = dist.shard(B)
    return e_GD[start:stop], id_G[start:stop]


def run(head: CentreHead, e_BD: Tensor, id_B: Tensor) -> tuple[Tensor, Tensor]:
    e_BD = e_BD.clone().requires_grad_()
    loss = head(e_BD[None], id_B).loss
    loss.backward()
    assert e_BD.grad is not None
    return loss.detach(), e_BD.grad


def train(head: CentreHead, dist: Dist, steps: range) -> list[float]:
    losses = []
    for step in steps:
        losses.append(float(run(head, *part(dist, step))[0]))
        head.after_step(0.01)
    return losses


MARGINS = ["cosface", "curricular", "magface", "subcenter_arcface", "sphereface2", "unitsface", "robustface"]


def check_gradients(dist: Dist) -> None:
    for margin in MARGINS:
        head, alone = make(dist, margin=margin), make(Dist(), margin=margin)
        for step in range(3):
            loss, grad_BD = run(head, *part(dist, step))
            e_GD, id_G = part(Dist(), step)
            expected, grad_GD = run(alone, e_GD, id_G)
            start, stop = dist.shard(B)
            torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
            # data-parallel training divides by the number of processes what it averages
            wanted = grad_GD[start:stop] * dist.world_size
            torch.testing.assert_close(grad_BD, wanted, rtol=0, atol=2e-5 * float(wanted.abs().max()))
            for mine, other in zip(head.margin.parameters(), alone.margin.parameters(), strict=True):
                torch.testing.assert_close(mine.grad, other.grad, rtol=1e-4, atol=1e-6)
            head.after_step(0.01)
            alone.after_step(0.01)
        rows = head.read_rows(torch.arange(C))
        torch.testing.assert_close(rows, alone.read_rows(torch.arange(C)), rtol=0, atol=1e-5)
        for mine, other in zip(head.margin.buffers(), alone.margin.buffers(), strict=True):
            torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("world_size", [2, 3])
def test_loss_and_gradients_equal_one_process_on_uneven_shards(world_size: int) -> None:
    run_processes(world_size, check_gradients)


def check_veto(dist: Dist) -> None:
    head = make(dist, "partial_fc", rate=0.5)
    before = head.read_rows(torch.arange(C))
    run(head, *part(dist, 0))
    if dist.rank == 1:
        head._pending[0].saved.grad_value_B[0] = torch.inf  # as an overflow on this process only
    head.after_step(0.1)
    assert head.skipped_steps == 1
    assert torch.equal(head.read_rows(torch.arange(C)), before)


def test_a_gradient_that_is_not_finite_on_one_process_stops_all() -> None:
    run_processes(2, check_veto)


def check_start(dist: Dist) -> None:
    rows = make(dist).read_rows(torch.arange(C))
    assert torch.equal(rows, make(Dist()).read_rows(torch.arange(C)))


def test_centres_start_the_same_on_any_number_of_processes() -> None:
    run_processes(3, check_start)


def check_resume(dist: Dist, folder: str, number: int, placement: str) -> None:
    head = make(dist, **options(dist, folder, number, placement))
    if number:
        head.load_rows(Path(folder, str(number - 1)))
    losses = train(head, dist, range(4 * number, 4 * number + 4))
    head.save_rows(Path(folder, str(number)))
    rows = head.read_rows(torch.arange(C))
    if dist.is_main:
        torch.save((losses, rows), Path(folder, f"result{number}"))


def options(dist: Dist, folder: str, number: int, placement: str) -> dict[str, Any]:
    disk = {"directory": f"{folder}/work{number}"} if placement == "disk" else {}
    return {"placement": placement, "margin": "subcenter_arcface", **disk}


@pytest.mark.parametrize("placement", ["device", "disk"])
def test_a_run_goes_on_with_three_then_two_then_one_then_two_processes(
    placement: str, tmp_path: Path
) -> None:
    for number, world_size in enumerate((3, 2, 1, 2)):
        if world_size == 1:
            check_resume(Dist(), str(tmp_path), number, placement)
        else:
            run_processes(world_size, check_resume, str(tmp_path), number, placement)
    alone = make(Dist(), margin="subcenter_arcface")
    for number in range(4):
        losses, rows = torch.load(tmp_path / f"result{number}")
        expected = train(alone, Dist(), range(4 * number, 4 * number + 4))
        assert losses == pytest.approx(expected, rel=1e-4)
        torch.testing.assert_close(rows, alone.read_rows(torch.arange(C)), rtol=0, atol=1e-4)


def check_other_people(dist: Dist, folder: str) -> None:
    saved = make(dist)
    train(saved, dist, range(2))
    old = saved.read_rows(torch.arange(C))
    saved.save_rows(Path(folder))
    old_ids = torch.tensor([5, -1, 36, 0, -1, 20, 21])  # others are gone; 1 and 4 are new
    head = make(dist, num_ids=7)
    fresh = head.read_rows(torch.arange(7))
    head.inherit_rows(Path(folder), old_ids)
    rows = head.read_rows(torch.arange(7))
    assert torch.equal(rows, torch.where((old_ids >= 0)[:, None], old[old_ids], fresh))


@pytest.mark.parametrize("world_size", [1, 2])
def test_identities_are_appended_removed_and_renumbered(world_size: int, tmp_path: Path) -> None:
    if world_size == 1:
        check_other_people(Dist(), str(tmp_path))
    else:
        run_processes(world_size, check_other_people, str(tmp_path))
