"""Heads against a dense reference on this machine: time of a step, memory beyond rows and momentum, roofline.

python benchmarks/heads.py [CASE ...] [--threads 2] [--clock wall]

The reference does what the public Partial FC code does (dense autograd gradient of the whole matrix, top-k
of random numbers, torch SGD over all rows), written here from its description. Cases run one after the other,
each in a fresh process; the ratios compare times of the same process. ``--clock cpu --threads 1`` counts
processor time, for busy machines.
"""

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale import heads, margins
from facescale.heads.centre_head import CentreHead
from facescale.ops import product_dtype

B, D = 128, 512
SCALE, M = 64.0, 0.4


class DenseReference:
    """CosFace over all or sampled rows of one big parameter."""

    def __init__(self, num_ids: int, dim: int, rate: float) -> None:
        self.weight = nn.Parameter(torch.empty(num_ids, dim).normal_(0, 0.01))
        self.rate = rate
        self.sgd = torch.optim.SGD([self.weight], lr=0.1, momentum=0.9, weight_decay=5e-4)

    def step(self, e_BD: Tensor, id_B: Tensor) -> None:
        """One step on a batch."""
        w_KD, target_B = self.weight, id_B
        if self.rate < 1:
            positive = id_B.unique()
            score_C = torch.rand(len(self.weight))
            score_C[positive] = 2.0
            index_K = score_C.topk(int(self.rate * len(self.weight))).indices.sort().values
            w_KD, target_B = self.weight[index_K], torch.searchsorted(index_K, id_B)
        cos_BK = (F.normalize(e_BD) @ F.normalize(w_KD).T).clamp(-1, 1)
        margin_BK = torch.zeros_like(cos_BK).scatter_(1, target_B[:, None], M)
        loss = F.cross_entropy(SCALE * (cos_BK - margin_BK), target_B)
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()


class Ours:
    """A head of facescale, stepped as the training loop does."""

    def __init__(self, name: str, num_ids: int, dim: int, **options: Any) -> None:
        head = heads.build(name, num_ids, dim, margins.build("cosface", scale=SCALE, m=M), **options)
        assert isinstance(head, CentreHead)
        self.head = head

    def step(self, e_BD: Tensor, id_B: Tensor) -> None:
        """One step on a batch."""
        self.head(e_BD[None], id_B).loss.backward()
        self.head.after_step(0.1)


class Chunked:
    """torch's own chunked loss (2.13) over one big parameter, without a margin; torch SGD over all rows."""

    def __init__(self, num_ids: int, dim: int) -> None:
        self.weight = nn.Parameter(torch.empty(num_ids, dim).normal_(0, 0.01))
        self.sgd = torch.optim.SGD([self.weight], lr=0.1, momentum=0.9, weight_decay=5e-4)

    def step(self, e_BD: Tensor, id_B: Tensor) -> None:
        """One step on a batch."""
        options = torch.nn.LinearCrossEntropyOptions()
        loss = F.linear_cross_entropy(
            SCALE * F.normalize(e_BD), F.normalize(self.weight), id_B, options=options
        )
        self.sgd.zero_grad()
        loss.backward()
        self.sgd.step()


class BareProducts:
    """The two products of an exact softmax: logits, and the gradient of all rows."""

    def __init__(self, num_ids: int, dim: int, dtype: torch.dtype) -> None:
        self.w_CD, self.p_CB = torch.randn(num_ids, dim).to(dtype), torch.zeros(num_ids, B).to(dtype)

    def step(self, e_BD: Tensor, id_B: Tensor) -> None:
        """One step on a batch."""
        e_BD = e_BD.detach().to(self.w_CD.dtype)
        torch.mm(self.w_CD, e_BD.T, out=self.p_CB)
        torch.mm(self.p_CB, e_BD, out=self.w_CD)


class Roofline:
    """What no sampled step can do without: three products, and rows and momentum in and out."""

    def __init__(self, num_ids: int, dim: int, num_rows: int) -> None:
        dtype = product_dtype("auto", torch.device("cpu"))
        self.rows, self.momentum = torch.randn(num_ids, dim), torch.zeros(num_ids, dim)
        self.into = torch.zeros(2, num_rows, dim)
        self.w_RD, self.p_RB = torch.zeros(num_rows, dim).to(dtype), torch.zeros(num_rows, B).to(dtype)
        self.pull_BD = torch.zeros(B, dim).to(dtype)
        self.num_rows, self.dtype = num_rows, dtype

    def step(self, e_BD: Tensor, id_B: Tensor) -> None:
        """One step on a batch."""
        row_R = self.index
        e_BD = e_BD.detach().to(self.dtype)
        for plane, into in zip((self.rows, self.momentum), self.into, strict=True):
            torch.index_select(plane, 0, row_R, out=into)
        torch.mm(self.w_RD, e_BD.T, out=self.p_RB)
        torch.mm(self.p_RB.T, self.w_RD, out=self.pull_BD)
        torch.mm(self.p_RB, e_BD, out=self.w_RD)
        for plane, values in zip((self.rows, self.momentum), self.into, strict=True):
            plane.index_copy_(0, row_R, values)

    def draw(self) -> None:
        """Choose the rows of the next step (not part of it)."""
        self.index = torch.randperm(len(self.rows))[: self.num_rows].sort().values


def status(key: str) -> int:
    """A figure of /proc/self/status, bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key + ":")) * 1024


def measure(
    steppers: dict[str, Any], num_ids: int, dim: int, steps: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Best time of a step of each, in ms; they take turns, so that a busy machine is fair to all."""
    generator = torch.Generator().manual_seed(0)
    best = dict.fromkeys(steppers, float("inf"))
    for number in range(steps + 2):
        e_BD = torch.randn(B, dim, generator=generator, requires_grad=True)
        id_B = torch.randint(0, num_ids, (B,), generator=generator)
        for name, stepper in steppers.items():
            if hasattr(stepper, "draw"):
                stepper.draw()
            before = clock()
            stepper.step(e_BD, id_B)
            if number >= 2:
                best[name] = min(best[name], 1e3 * (clock() - before))
    return best


def extra_mb(num_ids: int, ours: Ours) -> float:
    """Peak memory of two first steps beyond rows and momentum, MB."""
    memory = ours.head.store.memory
    assert memory is not None
    for plane in memory.tensors.values():
        plane.mul_(1)  # zeros get their pages now
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(2):
        ours.step(torch.randn(B, D, requires_grad=True), torch.randint(0, num_ids, (B,)))
    return (status("VmHWM") - before) / 1e6


def partial_fc(clock: Callable[[], float], num_ids: int = 1_000_000) -> dict[str, float]:
    """Rate 0.1: the reference, ours and the roofline."""
    sampled = num_ids // 10
    ours = Ours("partial_fc", num_ids, D, rate=0.1)
    extra = extra_mb(num_ids, ours)
    times = measure({"ours": ours, "roofline": Roofline(num_ids, D, sampled)}, num_ids, D, 8, clock)
    del ours
    reference = {"reference": DenseReference(num_ids, D, 0.1)}
    times |= measure(reference, num_ids, D, 2, clock)
    times["reference / ours"] = times["reference"] / times["ours"]
    times["ours / roofline"] = times["ours"] / times["roofline"]
    times |= {"extra MB": extra, "extra / sampled rows": extra * 1e6 / (sampled * D * 4)}
    return times


def full(clock: Callable[[], float], num_ids: int = 1_000_000) -> dict[str, float]:
    """Exact softmax in bfloat16 and float32 products against the reference at rate 1."""
    times: dict[str, float] = {}
    for products in ("bfloat16", "float32"):
        ours = Ours("full", num_ids, D, products=products)
        times[f"extra MB, {products}"] = extra_mb(num_ids, ours)
        bare = BareProducts(num_ids, D, getattr(torch, products))
        times |= measure({products: ours, f"two products, {products}": bare}, num_ids, D, 3, clock)
        times[f"{products} / two products"] = times[products] / times[f"two products, {products}"]
        del ours, bare
    others = {"reference": DenseReference(num_ids, D, 1.0)}
    times |= measure(others, num_ids, D, 2, clock)
    if hasattr(F, "linear_cross_entropy"):
        others = {"linear_cross_entropy": Chunked(num_ids, D)}
        times |= measure(others, num_ids, D, 2, clock)
    for products in ("bfloat16", "float32"):
        for other in times.keys() & {"reference", "linear_cross_entropy"}:
            times[f"{other} / {products}"] = times[other] / times[products]
    return times


def warm_memory() -> None:
    """Have memory that the system can give out at once.

    A virtual machine gets a page from its host when it first touches it, whoever does (10 microseconds here,
    ten times what the system needs to hand it out again), and may lose what lies free for a while.
    """
    torch.ones(4 << 28)  # 4 GiB, given back at once: more than the pages of all records written below


def disk(clock: Callable[[], float], num_ids: int = 10_000_000) -> dict[str, float]:
    """8,192 negatives: many identities on disk against 100,000 in memory."""
    folder = tempfile.mkdtemp()
    try:
        options = {"num_negatives": 8192}
        warm_memory()
        before = status("VmRSS")
        many = Ours("partial_fc", num_ids, D, placement="disk", directory=folder, **options)
        times = {"disk": measure({"disk": many}, num_ids, D, 30, clock)["disk"]}
        times["resident MB, disk"] = (status("VmRSS") - before) / 1e6
        few = Ours("partial_fc", 100_000, D, **options)
        times |= measure({"memory, 100 k": few}, 100_000, D, 30, clock)
        times["disk / memory"] = times["disk"] / times["memory, 100 k"]
        less = Ours("partial_fc", 100_000, D, placement="disk", directory=folder + "/less", **options)
        before = status("VmRSS")
        measure({"": less}, 100_000, D, 30, clock)
        times["resident MB, disk 100 k (beside the one above)"] = (status("VmRSS") - before) / 1e6
        return times
    finally:
        shutil.rmtree(folder)


def huge(clock: Callable[[], float], num_ids: int = 100_000_000, steps: int = 300) -> dict[str, float]:
    """Identities of 128 values on disk, against 100,000 in memory; a checkpoint, and a head that goes on."""
    folder = Path(tempfile.mkdtemp())
    (saved := folder / "saved").mkdir()
    try:
        options = {"num_negatives": 8192}
        warm_memory()
        before = status("VmRSS")
        many = Ours("partial_fc", num_ids, 128, placement="disk", directory=folder / "rows", **options)
        start = clock()
        times = {"step": measure({"": many}, num_ids, 128, steps, clock)[""]}
        many.head.store.flush()
        times["step, mean"] = 1e3 * (clock() - start) / (steps + 2)
        times["resident MB"] = (status("VmRSS") - before) / 1e6
        few = Ours("partial_fc", 100_000, 128, **options)
        times |= measure({"memory, 100 k": few}, 100_000, 128, 30, clock)
        times["step / memory"] = times["step"] / times["memory, 100 k"]
        times["files GB"] = sum(file.stat().st_blocks for file in folder.rglob("*.bin")) * 512 / 1e9
        start = clock()
        many.head.save_rows(saved)
        times["checkpoint, s"], start = clock() - start, clock()
        again = Ours("partial_fc", num_ids, 128, placement="disk", directory=folder / "again", **options)
        again.head.load_rows(saved)
        again.head.set_extra_state(many.head.get_extra_state())
        times["resume, s"] = clock() - start
        for head in (many, again):
            measure({"": head}, num_ids, 128, 1, clock)
        sample = torch.arange(0, num_ids, num_ids // 100_000)
        if not torch.equal(many.head.read_rows(sample), again.head.read_rows(sample)):
            raise AssertionError("the resumed head differs")
        return times
    finally:
        shutil.rmtree(folder)


CASES = {"partial_fc": partial_fc, "full": full, "disk": disk, "huge": huge}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"of: {', '.join(CASES)} (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--ids", type=int, help="number of identities, if not the case's own")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.inside:
        print(f"{platform.processor() or platform.machine()}, torch {torch.__version__}, {vars(args)}")
        options = ["--threads", str(args.threads), "--clock", args.clock]
        options += ["--ids", str(args.ids)] if args.ids else []
        for case in args.cases or CASES:
            subprocess.run([sys.executable, __file__, case, "--inside", *options], check=True)
        return
    torch.set_num_threads(args.threads)
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    case = args.cases[0]
    result = CASES[case](clock, *([args.ids] if args.ids else []))
    print(json.dumps({"case": case, **{key: round(value, 3) for key, value in result.items()}}), flush=True)


if __name__ == "__main__":
    main()
