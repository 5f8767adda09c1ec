"""AttFC: generated centres, the container, and the loss against its formula written out."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from facescale import heads, margins
from facescale.distributed import Dist
from facescale.heads.attfc import AttFCHead, generative_centres
from tests.distributed.spawn import run_processes
from tests.heads.slot_heads import DIM, NUM_IDS, draw, step, step_peak, through_disk

KINDS: list[dict[str, Any]] = [
    {},
    {"fresh": True},
    {"unique": True},
    {"unique": True, "fresh": True, "refresh": 0.3},
    {"temperature": 0.1, "normalise_keys": False},
    {"compat": True},
]


def make(loss: str = "cosface", dist: Dist | None = None, **options: Any) -> AttFCHead:
    options = {"size": 12, "keys": 2, "chunk": 5, "products": "float32"} | options
    head = heads.build("attfc", NUM_IDS, DIM, margins.build(loss, scale=8.0), dist, **options)
    assert isinstance(head, AttFCHead)
    return head


class Dense:
    """The same head in the plainest form: lists, and logits as one matrix in float64."""

    def __init__(self, head: AttFCHead) -> None:
        self.head = head
        self.margin = copy.deepcopy(head.margin).double()
        self.rows = list(head.rows[0].double()) if head.compat else []
        self.ids = [-1] * len(self.rows)
        self.pointer = 0

    def centres(self, q_BD: Tensor, k_VBD: Tensor, ids: list[int]) -> Tensor:
        cos_VB = F.cosine_similarity(q_BD, k_VBD, dim=-1)
        keys_VBD = F.normalize(k_VBD, dim=-1) if self.head.normalise_keys else k_VBD
        attention_VB = (cos_VB / self.head.temperature).softmax(0)
        new_BD = F.normalize((attention_VB[..., None] * keys_VBD).sum(0), dim=-1)
        rate = self.head.refresh
        for place, id_ in enumerate(ids):
            if rate < 1 and id_ in self.ids:
                old_D = self.rows[self.ids.index(id_)]
                new_BD[place] = F.normalize((1 - rate) * old_D + rate * new_BD[place], dim=0)
        return new_BD.detach()

    def loss(self, q_BD: Tensor, ids: list[int], centre_BD: Tensor) -> Tensor:
        e_BD = F.normalize(q_BD, dim=-1)
        total = torch.zeros((), dtype=torch.float64)
        target = self.margin.prepare((e_BD * centre_BD).sum(1), q_BD.norm(dim=1))
        target_B = self.margin.target(target)
        rows = self.rows + (list(centre_BD) if self.head.fresh else [])
        row_ids = self.ids + (ids if self.head.fresh else [])
        for place, id_ in enumerate(ids):
            part = type(target)(
                target.cos_B[[place]].detach(), {k: v[[place]] for k, v in target.extra.items()}
            )
            negatives = []
            for number, (row_D, row_id) in enumerate(zip(rows, row_ids, strict=True)):
                stale = self.head.unique and self.head.fresh and number < len(self.rows) and row_id in ids
                cos = (e_BD[place] @ row_D).reshape(1, 1)
                if row_id != id_ and not stale:
                    negatives.append(self.margin.negatives(cos, part)[0, 0])
                elif self.head.compat:
                    negatives.append(self.margin.negatives(torch.full_like(cos, -1.0).detach(), part)[0, 0])
            if self.margin.reduction == "sum":
                total = total + target_B[place] + sum(negatives)
            else:
                logits = torch.stack([target_B[place], *negatives])
                total = total + F.cross_entropy(logits[None], torch.tensor([0]))
        return total / len(ids)

    def enqueue(self, ids: list[int], centre_BD: Tensor) -> None:
        if self.head.unique:
            for id_, centre_D in zip(ids, centre_BD, strict=True):
                if id_ in self.ids:  # least recently used first: the order of the list
                    place = self.ids.index(id_)
                    del self.ids[place], self.rows[place]
                elif len(self.ids) == self.head.size:
                    del self.ids[0], self.rows[0]
                self.ids.append(id_)
                self.rows.append(centre_D)
            return
        for id_, centre_D in zip(ids, centre_BD, strict=True):
            if self.pointer == len(self.rows):
                self.ids.append(id_)
                self.rows.append(centre_D)
            self.ids[self.pointer], self.rows[self.pointer] = id_, centre_D
            self.pointer = (self.pointer + 1) % self.head.size


@pytest.mark.parametrize("loss", ["cosface", "arcface", "curricular", "adaface", "sphereface2", "circle"])
@pytest.mark.parametrize("kind", KINDS, ids=[" ".join(kind) or "default" for kind in KINDS])
def test_loss_and_gradients_equal_the_formula(loss: str, kind: dict[str, Any]) -> None:
    head = make(loss, **kind)
    dense = Dense(head)
    for seed in range(6):
        q_VBD, ids, k_VBD = draw(seed, 2, 7)
        q_BD = q_VBD[0].double().requires_grad_()
        id_list = ids[0].tolist()
        centre_BD = dense.centres(q_BD, k_VBD.double(), id_list)
        expected = dense.loss(q_BD, id_list, centre_BD)
        expected.backward()
        dense.enqueue(id_list, centre_BD)
        head.zero_grad()
        actual, grad_VBD = step(head, q_VBD[:1], ids[0], k_VBD)
        assert actual.item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)
        assert torch.allclose(grad_VBD[0].double(), q_BD.grad, rtol=1e-3, atol=1e-5)
        for ours, theirs in zip(head.margin.parameters(), dense.margin.parameters(), strict=True):
            assert ours.grad is not None
            assert ours.grad.item() == pytest.approx(theirs.grad.item(), rel=1e-4, abs=1e-5)
            theirs.grad = None


def test_a_centre_follows_the_nearest_key_when_cold_and_is_the_mean_when_hot() -> None:
    q_BD = torch.tensor([[1.0, 0.0]])
    k_VBD = torch.tensor([[[2.0, 0.2]], [[0.0, 5.0]]])
    unit_VD = F.normalize(k_VBD[:, 0], dim=1)
    cold, attention_BV = generative_centres(q_BD, k_VBD, temperature=1e-3)
    assert torch.allclose(cold[0], unit_VD[0])
    assert attention_BV.tolist() == [[1.0, 0.0]]
    hot, _ = generative_centres(q_BD, k_VBD, temperature=1e6)
    assert torch.allclose(hot[0], F.normalize(unit_VD.sum(0), dim=0), atol=1e-6)
    raw, _ = generative_centres(q_BD, k_VBD, temperature=1e6, normalise_keys=False)
    assert torch.allclose(raw[0], F.normalize(k_VBD.sum(0)[0], dim=0), atol=1e-6)


def test_the_own_identity_is_no_negative_however_often_it_sits_in_the_container() -> None:
    head = make(size=6)
    q_VBD, _, k_VBD = draw(0, 2, 3)
    ids = torch.tensor([4, 4, 4])
    for _ in range(3):
        loss, grad = step(head, q_VBD[:1], ids, k_VBD)
        assert loss == 0
        assert not grad.any()
    assert head.slot_id.tolist() == [4] * 6


def test_a_unique_container_holds_an_identity_once() -> None:
    head = make(unique=True)
    for seed in range(5):
        q_VBD, ids, k_VBD = draw(seed, 2, 7)
        step(head, q_VBD[:1], ids[0], k_VBD)
    held = head.slot_id[head.slot_id >= 0].tolist()
    assert len(set(held)) == len(held) == len(head.pool)


def test_nothing_is_kept_of_a_skipped_step_or_of_an_evaluation() -> None:
    head = make()
    q_VBD, ids, k_VBD = draw(0, 2, 4)
    head(q_VBD[:1], ids[0], k_VBD)
    head.skip_step()
    head.eval()
    head(q_VBD[:1], ids[0], k_VBD)
    head.after_step(0.1)
    assert len(head.pool) == 0


def test_all_parts_of_an_accumulated_step_enter_the_container_after_it() -> None:
    head = make()
    for seed in range(2):
        q_VBD, ids, k_VBD = draw(seed, 2, 4)
        head(q_VBD[:1], ids[0], k_VBD)
        assert len(head.pool) == 0
    head.after_step(0.1)
    assert head.slot_id[:8].tolist() == draw(0, 2, 4)[1][0].tolist() + draw(1, 2, 4)[1][0].tolist()


@pytest.mark.parametrize("kind", [{}, {"unique": True, "fresh": True}], ids=["ring", "unique"])
def test_a_resumed_head_goes_on_bit_for_bit(tmp_path: Path, kind: dict[str, Any]) -> None:
    head, other = make(**kind), make(seed=9, **kind)
    for seed in range(4):
        q_VBD, ids, k_VBD = draw(seed, 2, 7)
        step(head, q_VBD[:1], ids[0], k_VBD)
    through_disk(head, other, tmp_path)
    for seed in range(4, 8):
        q_VBD, ids, k_VBD = draw(seed, 2, 7)
        ours = step(head, q_VBD[:1], ids[0], k_VBD)
        theirs = step(other, q_VBD[:1], ids[0], k_VBD)
        assert all(torch.equal(x, y) for x, y in zip(ours, theirs, strict=True))
    assert torch.equal(head.rows, other.rows)
    assert torch.equal(head.slot_id, other.slot_id)


def _check_processes(dist: Dist, folder: str) -> None:
    for kind in ({}, {"unique": True, "fresh": True, "refresh": 0.5}, {"compat": True}):
        alone, here = make("adaface", **kind), make("adaface", dist, **kind)
        for seed in range(4):
            q_VBD, ids, k_VBD = draw(seed, 2, 6)
            loss, grad = step(alone, q_VBD[:1], ids[0], k_VBD)
            part = slice(dist.rank * 6 // dist.world_size, (dist.rank + 1) * 6 // dist.world_size)
            actual, actual_grad = step(here, q_VBD[:1, part], ids[0, part], k_VBD[:, part])
            assert torch.allclose(actual, loss, rtol=1e-5)
            # data-parallel training averages over processes
            assert torch.allclose(actual_grad / dist.world_size, grad[:, part], rtol=1e-4, atol=1e-6)
        assert torch.allclose(here.rows, alone.rows[:, here.first : here.stop])
    here.save_rows(Path(folder))
    dist.barrier()
    alone.rows.zero_()
    alone.load_rows(Path(folder))
    assert torch.equal(alone.rows[:, here.first : here.stop], here.rows)


def test_several_processes_share_one_container(tmp_path: Path) -> None:
    run_processes(2, _check_processes, str(tmp_path))


@pytest.mark.parametrize("loss", ["cosface", "curricular"])
@pytest.mark.parametrize("kind", [{}, {"unique": True, "fresh": True}], ids=["ring", "unique"])
def test_memory_is_as_planned(loss: str, kind: dict[str, Any]) -> None:
    head = heads.build("attfc", 3000, 128, loss, chunk=512, products="float32", **kind)
    planned = head.bytes_needed(256)
    assert planned.device == head.rows.nbytes + head.slot_id.nbytes
    assert planned.host == head.pool.bytes >= head.size * 8
    assert step_peak(head, 256, 3000) == pytest.approx(planned.transient, rel=0.15)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="attfc got 0 key views; give 2"):
        make()(torch.ones(1, 1, DIM), torch.tensor([0]))
    with pytest.raises(ValueError, match="at least 1 key, got keys=0"):
        make(keys=0)
    with pytest.raises(ValueError, match="temperature is 0; it must be positive"):
        make(temperature=0)
    with pytest.raises(ValueError, match=r"refresh is 0.5; .* only with unique"):
        make(refresh=0.5)
    with pytest.raises(ValueError, match=r"slots are size=0, share=2; give a size"):
        make(size=0, share=2)
