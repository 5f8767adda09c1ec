"""Partial FC as released: losses, gradients, samples, an SGD trace, on one and two processes (golden C)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facescale import heads, margins
from facescale.distributed import Dist
from facescale.heads import ClassHead
from tests.distributed.spawn import run_processes


class Drawn:
    """A sampler that takes the k largest of the given numbers, as the release does with random ones."""

    def __init__(self, scores: np.ndarray, num_wanted: int) -> None:
        self.scores, self.num_wanted = scores, num_wanted

    def select(self, positives: np.ndarray, step: int) -> np.ndarray:
        if len(positives) > self.num_wanted:
            return positives
        scores = self.scores.copy()
        scores[positives] = 2.0
        return np.sort(np.argsort(-scores, kind="stable")[: self.num_wanted])


def make_head(meta: dict[str, Any], dist: Dist, weight: np.ndarray) -> ClassHead:
    margin = margins.build(
        "combined",
        scale=meta["s"],
        m1=meta["m1"],
        m2=meta["m2"],
        m3=meta["m3"],
        interclass_filter=meta.get("interclass_filtering_threshold", 0),
        compat=True,
    )
    head = heads.build(
        "partial_fc", 37, 16, margin, dist, rate=meta["sample_rate"], compat=True, products="float32", chunk=7
    )
    head.write_rows(torch.arange(37), torch.from_numpy(weight))
    return head


def step(head: ClassHead, data: dict[str, np.ndarray], rank: int, lr: float) -> tuple[Any, ...]:
    if f"perm_rank{rank}" in data:
        head.sampler = Drawn(data[f"perm_rank{rank}"], head.sampler.num_wanted)
    e_BD = torch.from_numpy(data["embeddings"][rank]).requires_grad_()
    out = head(e_BD[None], torch.from_numpy(data["labels"][rank]))
    out.loss.backward()
    classes = head._pending[0].classes
    head.after_step(lr)
    return out.loss.detach(), e_BD.grad, classes, head.read_rows(torch.arange(37))


def check_case(dist: Dist, case: str, golden: str) -> None:
    arrays = np.load(f"{golden}/C_partial_fc.npz")
    meta = json.loads(Path(golden, "C_partial_fc.json").read_text())[case]
    data = {key.removeprefix(case + "/"): arrays[key] for key in arrays.files if key.startswith(case + "/")}
    head = make_head(meta, dist, data["weight"])
    head.store.rule.momentum = head.store.rule.coupled_decay = 0.0
    loss, grad, classes, after = step(head, data, dist.rank, lr=1.0)
    assert_near(loss, data["loss"], 1e-5)
    assert_near(grad, data["grad_embeddings"][dist.rank], 2e-4)
    assert_near(torch.from_numpy(data["weight"]) - after, data["grad_weight"], 2e-4)
    if f"index_rank{dist.rank}" in data:
        assert classes.tolist() == data[f"index_rank{dist.rank}"].tolist()


def check_trace(dist: Dist, golden: str) -> None:
    arrays = np.load(f"{golden}/C_partial_fc.npz")
    name = f"trace_ws{dist.world_size}"
    meta = json.loads(Path(golden, "C_partial_fc.json").read_text())[name]
    head = make_head(
        {"m1": 1.0, "m2": 0.0, "m3": 0.4, "s": 16, **meta}, dist, arrays[f"{name}/weight_initial"]
    )
    for number in range(5):
        prefix = f"{name}/step{number}/"
        data = {key.removeprefix(prefix): arrays[key] for key in arrays.files if key.startswith(prefix)}
        loss, grad, _, after = step(head, data, dist.rank, lr=0.1)
        assert_near(loss, data["loss"], 1e-5)
        assert_near(grad, data["grad_embeddings"][dist.rank], 2e-4)
        assert_near(after, data["weight_after"], 1e-5)


def assert_near(value: torch.Tensor, expected: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(value.numpy(), expected, rtol=0, atol=tolerance * np.abs(expected).max())


def cases(golden: Path, world_size: int) -> list[str]:
    names = json.loads((golden / "C_partial_fc.json").read_text())
    return [name for name in names if name.startswith(f"ws{world_size}/")]


def test_one_process_equals_the_release(golden: Path) -> None:
    found = cases(golden, 1)
    assert len(found) > 10
    for case in found:
        check_case(Dist(), case, str(golden))
    check_trace(Dist(), str(golden))


def check_all(dist: Dist, names: list[str], golden: str) -> None:
    for case in names:
        check_case(dist, case, golden)
    check_trace(dist, golden)


def test_two_processes_equal_the_release(golden: Path) -> None:
    run_processes(2, check_all, cases(golden, 2), str(golden))


def test_the_golden_index_depends_on_the_scores(golden: Path) -> None:
    arrays = np.load(golden / "C_partial_fc.npz")
    case = "ws1/arcface/sr0.5"
    sampler = Drawn(np.random.default_rng(0).random(37), 18)
    positives = np.unique(arrays[f"{case}/labels"])
    assert sampler.select(positives, 0).tolist() != arrays[f"{case}/index_rank0"].tolist()
    with pytest.raises(AssertionError):
        assert_near(torch.zeros(3), np.ones(3), 1e-5)
