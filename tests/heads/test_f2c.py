"""F2C: the two passes over the pool, against a plain loop in float64; what stays after a step."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from facescale import heads, margins
from facescale.distributed import Dist
from facescale.heads.f2c import F2CHead
from facescale.heads.f2c_pool import plan_writes
from facescale.pools import LruPool
from tests.distributed.spawn import run_processes
from tests.heads.slot_heads import DIM, NUM_IDS, draw, step, step_peak, through_disk


def make(loss: str = "cosface", dist: Dist | None = None, **options: Any) -> F2CHead:
    options = {"size": 12, "chunk": 5, "products": "float32"} | options
    head = heads.build("f2c", NUM_IDS, DIM, margins.build(loss, scale=8.0), dist, **options)
    assert isinstance(head, F2CHead)
    return head


class Dense:
    """The same head one feature after the other, in float64: two rows (or one) and a toggle per slot."""

    def __init__(self, head: F2CHead) -> None:
        self.size, self.hard, self.compat, self.refresh = head.size, head.hard, head.compat, head.refresh
        self.both, self.planes = head.both, head.rows_per_id
        self.margin = copy.deepcopy(head.margin).double()
        self.rows = head.rows.double().clone()
        self.toggles = [0] * head.size
        self.slots: dict[int, int] = {}  # least recently used first

    def write(self, g_BD: Tensor, ids: list[int]) -> set[int]:
        double = set()
        for g_D, id_ in zip(g_BD, ids, strict=True):
            if id_ in self.slots:
                slot = self.slots.pop(id_)
                row = self.toggles[slot] if self.planes == 2 else 0
                self.rows[row, slot] = g_D
                self.toggles[slot] = 1 - row
                double.add(slot)
            else:
                slot = len(self.slots)
                if slot == self.size:
                    slot = self.slots.pop(next(iter(self.slots)))
                if not self.compat:
                    double.discard(slot)
                self.rows[0, slot] = g_D
                self.toggles[slot] = 1
            self.slots[id_] = slot
        return double

    def compare(self, q_BD: Tensor, ids: list[int], double: set[int]) -> Tensor:
        e_BD = F.normalize(q_BD, dim=1)
        used = self.size if self.compat else len(self.slots)
        inside = [place for place, id_ in enumerate(ids) if id_ in self.slots]
        target = torch.tensor([self.slots[ids[place]] for place in inside], dtype=torch.int64)
        outside = [place for place, id_ in enumerate(ids) if id_ not in self.slots]
        total = torch.zeros((), dtype=torch.float64)
        for mixed in (False, True)[: self.planes]:
            rows = torch.stack([self.rows[int(mixed and s in double), s] for s in range(used)])
            cos = e_BD @ rows.T
            out = self.margin(cos[inside], target, q_BD[inside].norm(dim=1))
            softmax = self.margin.reduction == "softmax"
            total = total + (F.cross_entropy(out, target) if softmax else out.sum(1).mean())
            if outside:
                total = total + cos[outside].topk(min(self.hard, used), 1).values.clamp(min=0).mean()
        return total

    def moved(self, g_D: Tensor, id_: int) -> Tensor:
        if id_ not in self.slots:
            return g_D
        newer_D = self.rows[1 - self.toggles[self.slots[id_]], self.slots[id_]]
        return F.normalize((1 - self.refresh) * newer_D + self.refresh * g_D, dim=0)

    def step(self, q_VBD: Tensor, ids: Tensor, g_VBD: Tensor) -> Tensor:
        raw_VBD, id_lists = F.normalize(g_VBD, dim=2), ids.tolist()

        def features(view: int) -> Tensor:
            if self.refresh == 1:
                return raw_VBD[view]
            return torch.stack(list(map(self.moved, raw_VBD[view], id_lists[view])))

        g_VBD = torch.stack([features(0), features(1)])
        before = self.rows.clone(), list(self.toggles), dict(self.slots)
        first = self.compare(q_VBD[0], id_lists[0], self.write(g_VBD[1], id_lists[1]))
        self.rows, self.toggles, self.slots = before
        second = self.compare(q_VBD[1], id_lists[1], self.write(g_VBD[0], id_lists[0]))
        if self.both:
            self.write(features(1), id_lists[1])
        return first + second


# 12 slots hold a batch of 8 identities with some luck; 5 slots lose some of them again within the pass.
KINDS: dict[str, dict[str, Any]] = {
    "roomy": {},
    "tight": {"size": 5, "hard": 2},
    "roomy compat": {"compat": True},
    "tight compat": {"size": 5, "compat": True},
    "tight refresh": {"size": 5, "refresh": 0.3},
    "roomy refresh": {"refresh": 0.3},
    "tight both": {"size": 5, "both": True},
    "tight single": {"size": 5, "rows_per_id": 1},
    "roomy single both": {"refresh": 0.3, "both": True, "rows_per_id": 1},
}


@pytest.mark.parametrize("loss", ["cosface", "arcface", "sv_softmax", "curricular", "sphereface2"])
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_loss_gradients_and_pool_equal_the_plain_loop(loss: str, kind: dict[str, Any]) -> None:
    head = make(loss, **kind)
    dense = Dense(head)
    for seed in range(8):
        q_VBD, ids, k_VBD = draw(seed, 2, 8)
        double_VBD = q_VBD.double().requires_grad_()
        expected = dense.step(double_VBD, ids, k_VBD.double())
        expected.backward()
        head.zero_grad()
        actual, grad_VBD = step(head, q_VBD, ids, k_VBD)
        assert actual.item() == pytest.approx(expected.item(), rel=1e-4)
        assert torch.allclose(grad_VBD.double(), double_VBD.grad, rtol=1e-3, atol=1e-5)
        for ours, theirs in zip(head.margin.parameters(), dense.margin.parameters(), strict=True):
            assert ours.grad is not None
            assert ours.grad.item() == pytest.approx(theirs.grad.item(), rel=1e-4, abs=1e-5)
            theirs.grad = None
        assert torch.allclose(head.rows.double(), dense.rows, atol=1e-6)
        assert head.toggles.tolist() == dense.toggles
        assert head.pool.view(np.arange(NUM_IDS)).tolist() == [dense.slots.get(i, -1) for i in range(NUM_IDS)]


@settings(max_examples=150, deadline=None)
@given(
    capacity=st.integers(1, 8),
    compat=st.booleans(),
    rows_per_id=st.integers(1, 2),
    batches=st.lists(st.lists(st.integers(0, 12), max_size=16), min_size=1, max_size=4),
)
def test_writes_are_what_one_feature_after_the_other_does(
    capacity: int, compat: bool, rows_per_id: int, batches: list[list[int]]
) -> None:
    head = make(size=capacity, compat=compat, rows_per_id=rows_per_id)
    dense = Dense(head)
    pool, toggles = LruPool(capacity), np.zeros(capacity, np.int64)
    rows = dense.rows.clone()
    for number, batch in enumerate(batches):
        features = torch.arange(len(batch) * DIM, dtype=torch.float64).view(-1, DIM) + 1000 * number
        double = dense.write(features, batch)
        ids = np.array(batch, np.int64)
        before = pool.view(ids)
        writes = plan_writes(ids, before, pool.get(ids), toggles, compat, rows_per_id)
        for plane in range(rows_per_id):
            rows[plane, writes.slots[plane]] = features[writes.sources[plane]]
        toggles[writes.turned] = writes.toggles
        assert torch.equal(rows, dense.rows)
        assert toggles.tolist() == dense.toggles
        assert set(writes.double.tolist()) == double


def state_of(head: F2CHead) -> list[Any]:
    pool = head.pool.state()
    return [pool["ids"].tolist(), pool["slots"].tolist(), head.toggles.tolist(), head.rows.tolist()]


SINGLE: dict[str, Any] = {"size": 5, "refresh": 0.5, "both": True, "rows_per_id": 1}


@pytest.mark.parametrize("kind", [{"size": 6}, SINGLE])
def test_a_skipped_step_of_several_parts_leaves_all_as_it_was(kind: dict[str, Any]) -> None:
    head = make(**kind)
    for seed in range(3):
        step(head, *draw(seed, 2, 8))
    before = state_of(head)
    for seed in (3, 4, 5):
        head(*draw(seed, 2, 8))
    head.skip_step()
    assert state_of(head) == before


def test_parts_of_an_accumulated_step_see_each_other_in_the_pool() -> None:
    head, in_steps = make(), make()
    for seed in range(4):
        q_VBD, ids, k_VBD = draw(seed, 2, 8)
        losses = [one(q_VBD, ids, k_VBD).loss for one in (head, in_steps)]
        assert losses[0] == losses[1]
        in_steps.after_step(0.1)
    head.after_step(0.1)
    assert state_of(head) == state_of(in_steps)


def test_an_evaluation_changes_nothing() -> None:
    head = make()
    step(head, *draw(0, 2, 8))
    before = state_of(head)
    head.eval()
    head(*draw(1, 2, 8))
    head.after_step(0.1)
    assert state_of(head) == before


def test_one_list_of_identities_stands_for_both_views() -> None:
    q_VBD, ids, k_VBD = draw(0, 2, 8)
    once, twice = make(), make()
    assert once(q_VBD, ids[0], k_VBD).loss == twice(q_VBD, torch.stack([ids[0], ids[0]]), k_VBD).loss


@pytest.mark.parametrize("kind", [{"size": 7}, SINGLE])
def test_a_resumed_head_goes_on_bit_for_bit(kind: dict[str, Any], tmp_path: Path) -> None:
    head, other = make(**kind), make(**kind, seed=9)
    for seed in range(4):
        step(head, *draw(seed, 2, 8))
    through_disk(head, other, tmp_path)
    assert state_of(other) == state_of(head)
    for seed in range(4, 8):
        batch = draw(seed, 2, 8)
        pairs = zip(step(head, *batch), step(other, *batch), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert state_of(other) == state_of(head)


def _check_processes(dist: Dist) -> None:
    for kind in ({}, {"size": 5}, {"compat": True}, SINGLE):
        alone, here = make("adaface", **kind), make("adaface", dist, **kind)
        for seed in range(4):
            q_VBD, ids, k_VBD = draw(seed, 2, 8)
            loss, grad = step(alone, q_VBD, ids, k_VBD)
            part = slice(dist.rank * 8 // dist.world_size, (dist.rank + 1) * 8 // dist.world_size)
            actual, actual_grad = step(here, q_VBD[:, part], ids[:, part], k_VBD[:, part])
            assert torch.allclose(actual, loss, rtol=1e-5)
            # data-parallel training averages over processes
            assert torch.allclose(actual_grad / dist.world_size, grad[:, part], rtol=1e-4, atol=1e-6)
        assert torch.allclose(here.rows, alone.rows[:, here.first : here.stop])


def test_several_processes_share_one_pool() -> None:
    run_processes(2, _check_processes)


@pytest.mark.parametrize("loss", ["cosface", "curricular"])
def test_memory_is_as_planned(loss: str) -> None:
    head = heads.build("f2c", 3000, 128, loss, share=0.3, chunk=512, products="float32")
    planned = head.bytes_needed(384)
    assert planned.device == head.rows.nbytes
    assert planned.host == head.pool.bytes + head.toggles.nbytes + head.pool.loop_bytes
    assert step_peak(head, 384, 3000) == pytest.approx(planned.transient, rel=0.15)


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="f2c got 1 probe and 0 gallery views; give x and y of both"):
        make()(torch.ones(1, 1, DIM), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"hard=-1, outlier_weight=1\.0; give 0 or more"):
        make(hard=-1)
    with pytest.raises(ValueError, match=r"rows_per_id of f2c is 3; it is 2, as released, or 1"):
        make(rows_per_id=3)
    with pytest.raises(ValueError, match=r"refresh is 0; it lies above 0 up to 1"):
        make(refresh=0)
