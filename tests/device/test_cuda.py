"""What only a CUDA device can show: the same numbers as the CPU, half precision, memory as planned."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from facescale import heads, margins
from facescale.config import load_config
from facescale.distributed import Dist
from facescale.export.write import export
from facescale.heads import fused_softmax, slot_head
from facescale.heads.fused_softmax import kernels_for
from facescale.kernels import gpu_kernels
from facescale.plan.bench import bench_heads
from facescale.plan.measure import HeadVariant
from facescale.run import RunDir
from facescale.train import train
from tests.tiny import TINY

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="skipped: no CUDA device")

C, D, B = 300, 16, 32
CUDA = torch.device("cuda")
PLACEMENTS = ("device", "host", "disk")
HEADS: dict[str, dict[str, Any]] = {
    "full": {"products": "float32", "chunk": 64},
    "partial_fc": {"products": "float32", "rate": 0.3, "chunk": 64, "decay": "dense"},
    "attfc": {"share": 0.5, "unique": True, "fresh": True},
    "f2c": {"share": 0.5},
}


def make(name: str, device: str, margin: str = "cosface", **options: Any) -> heads.ClassHead:
    torch.manual_seed(0)
    dist = Dist(device=torch.device(device))
    return heads.build(name, C, D, margins.build(margin), dist, **options).to(dist.device)


def steps(head: heads.ClassHead, count: int = 3) -> tuple[list[float], Tensor]:
    """Losses of some steps, and the gradient of the queries in the last one."""
    device, needs = head.dist.device, head.needs
    losses = []
    for number in range(count):
        generator = torch.Generator().manual_seed(number)
        q_VBD = torch.randn(needs.query_views, B, D, generator=generator).to(device).requires_grad_()
        k_VBD = torch.randn(max(1, needs.key_views), B, D, generator=generator).to(device)
        ids = torch.randint(0, C, (needs.query_views, B), generator=generator)
        ids[-1, : B // 2] = ids[0, : B // 2].clone()
        ids = (ids if needs.identity_pairs else ids[0]).to(device)
        loss = head(q_VBD, ids, k_VBD if needs.key_views else None).loss
        loss.backward()
        head.after_step(0.05)
        losses.append(float(loss))
    assert q_VBD.grad is not None
    return losses, q_VBD.grad.cpu()


@pytest.fixture(autouse=True)
def _exact_products() -> Any:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


def disk(options: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    return {**options, "directory": tmp_path} if options.get("placement") == "disk" else options


@pytest.mark.parametrize("margin", ["cosface", "curricular", "adaface", "subcenter_arcface", "unitsface"])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_learns_the_same_as_on_the_cpu(name: str, margin: str) -> None:
    if margin in ("subcenter_arcface", "unitsface") and name in ("attfc", "f2c"):
        margin = "arcface"  # the others keep one row an identity
    expected, grad_BD = steps(make(name, "cpu", margin, **HEADS[name]))
    losses, cuda_grad_BD = steps(make(name, "cuda", margin, **HEADS[name]))
    assert losses == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(cuda_grad_BD, grad_BD, rtol=0, atol=1e-4 * float(grad_BD.abs().max()))


@pytest.mark.parametrize("store_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("name", ["full", "partial_fc"])
def test_centres_are_the_same_wherever_they_are(
    name: str, placement: str, store_dtype: str, tmp_path: Path
) -> None:
    options = disk({**HEADS[name], "placement": placement, "store_dtype": store_dtype}, tmp_path)
    there, here = make(name, "cuda", **options), make(name, "cpu", **HEADS[name])
    half = store_dtype == "bfloat16"
    count = 1 if half else 3  # the gradient of short rows is steep: roundings would be far apart soon
    assert steps(there, count)[0] == pytest.approx(steps(here, count)[0], rel=2e-2 if half else 1e-4)
    everybody = torch.arange(C)
    rows, expected = there.read_rows(everybody).cpu(), here.read_rows(everybody)
    torch.testing.assert_close(rows, expected, rtol=2**-6 if half else 1e-4, atol=1e-2 if half else 1e-5)
    there.save_rows(tmp_path / "saved")
    other = make(name, "cpu", **HEADS[name])
    other.load_rows(tmp_path / "saved")
    torch.testing.assert_close(other.read_rows(everybody), rows, rtol=2**-7 if half else 0, atol=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
@pytest.mark.parametrize("head", HEADS)
def test_a_training_goes_all_the_way_in_every_precision(head: str, precision: str, tmp_path: Path) -> None:
    settings = [*TINY, f"head.name={head}", f"train.precision={precision}", "train.duration=12 steps"]
    result = train(load_config(None, settings), tmp_path / "run", Dist(device=CUDA))
    assert result.finished
    rows = RunDir(tmp_path / "run").read_metrics()
    assert not [row for row in rows if row["kind"] == "bad_step"][3:], "fp16 finds its loss scale at once"
    assert all(0 < row["loss"] < 100 for row in rows if row["kind"] == "train")


@pytest.mark.parametrize("head", HEADS)
def test_an_interrupted_training_goes_on_where_it_was(head: str, tmp_path: Path) -> None:
    settings = [*TINY, f"head.name={head}", "train.precision=fp32"]
    whole = train(load_config(None, settings), tmp_path / "whole", Dist(device=CUDA))
    folder = tmp_path / "part"
    train(load_config(None, [*settings, "checkpoint.keep=9"]), folder, Dist(device=CUDA))
    run = RunDir(folder)
    for step in run.steps()[1:]:
        for file in sorted(run.snapshot(step).rglob("*"), reverse=True):
            file.unlink() if file.is_file() else file.rmdir()
        run.snapshot(step).rmdir()
    train(load_config(None, [*settings, "checkpoint.keep=9"]), folder, Dist(device=CUDA))
    losses = [[row["loss"] for row in one.read_metrics("train")] for one in (RunDir(folder), whole.run)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # convolutions add up in any order on a GPU


def test_a_model_trained_on_the_gpu_is_exported(tmp_path: Path) -> None:
    train(load_config(None, TINY), tmp_path / "run", Dist(device=CUDA))
    export(tmp_path / "run", tmp_path / "face.onnx")
    assert (tmp_path / "face.onnx").is_file()


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("full", {"products": "bfloat16"}),
        ("full", {"products": "float32", "placement": "host"}),
        ("partial_fc", {"rate": 0.1}),
        ("partial_fc", {"rate": 0.1, "store_dtype": "bfloat16"}),
        ("partial_fc", {"num_negatives": 20_000, "placement": "host"}),
        ("partial_fc", {"num_negatives": 20_000, "placement": "disk"}),
        ("attfc", {"share": 0.3}),
        ("f2c", {"share": 0.3}),
    ],
)
def test_planned_memory_of_the_device_is_what_is_taken(name: str, options: dict[str, Any]) -> None:
    (one,) = bench_heads(
        [HeadVariant(name, options)], [400_000], embedding_size=256, device="cuda", seconds=0
    )
    assert one.peak_bytes is not None, one.problem
    print(f"\n{one.head}: planned {one.planned_bytes / 1e6:.1f} MB, taken {one.peak_bytes / 1e6:.1f} MB")
    assert abs(one.planned_bytes - one.peak_bytes) < 0.15 * one.peak_bytes


@pytest.mark.parametrize("dim", [64, 512])
def test_the_kernels_run_here(dim: int) -> None:
    if torch.cuda.get_device_capability() < (8, 0) or gpu_kernels("class_softmax") is None:
        pytest.skip("skipped: no units for bfloat16, or no Triton")
    assert kernels_for(Dist(device=CUDA).device, torch.bfloat16, dim) is not None


@pytest.mark.parametrize("name", HEADS)
def test_kernels_and_chunks_learn_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {**HEADS[name], "products": "bfloat16"}
    by_kernels = steps(make(name, "cuda", **options))
    for user in (fused_softmax, slot_head):
        monkeypatch.setattr(user, "kernels_for", lambda device, products, dim: None)
    losses, grad_BD = steps(make(name, "cuda", **options))
    assert by_kernels[0] == pytest.approx(losses, rel=2e-2)
    assert torch.nn.functional.cosine_similarity(by_kernels[1].flatten(), grad_BD.flatten(), 0) > 0.99


@pytest.mark.parametrize("name", HEADS)
def test_a_step_waits_for_nothing(name: str) -> None:
    head = make(name, "cuda", **{**HEADS[name], "products": "bfloat16"})
    steps(head)
    needs = head.needs
    q_VBD = torch.randn(needs.query_views, B, D, device=CUDA, requires_grad=True)
    k_VBD = torch.randn(needs.key_views, B, D, device=CUDA) if needs.key_views else None
    ids = torch.arange(B).expand(2, B) if needs.identity_pairs else torch.arange(B)
    torch.cuda.set_sync_debug_mode("error")  # whatever waits raises
    try:
        head(q_VBD, ids, k_VBD).loss.backward()
        head.is_finite()
        head.finish_step(0.05)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_heads_are_measured_on_the_gpu() -> None:
    words = ["bench", "heads", "--heads", "full,partial_fc,attfc,f2c", "--ids", "100k", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "facescale", *words], capture_output=True, text=True, check=True
    )
    figures = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(figures) == 4
    assert all(row["step_ms"] > 0 and row["peak_bytes"] > 0 for row in figures)
