"""Time and peak memory of one head, measured in the process that calls."""

import json
import re
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from facescale import heads, kernels
from facescale.distributed import Dist
from facescale.heads import ClassHead
from facescale.plan.dense import DENSE, DenseSoftmax

_UNTIMED = 2  # first steps: they allocate buffers


@dataclass(frozen=True)
class HeadVariant:
    """A head with options.

    Attributes:
        name: of HEADS, or ``dense``.
        options: beside the defaults.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        texts = {key: x if isinstance(x, str) else json.dumps(x) for key, x in self.options.items()}
        options = ",".join(f"{key}={text}" for key, text in texts.items())
        return f"{self.name}:{options}" if options else self.name


@dataclass(frozen=True)
class Case:
    """What a process of its own measures; goes there as JSON."""

    name: str
    options: dict[str, Any]
    num_ids: int
    embedding_size: int
    batch_size: int
    margin: str
    device: str
    seconds: float
    threads: int

    @property
    def variant(self) -> HeadVariant:
        """Head and options."""
        return HeadVariant(self.name, self.options)

    @property
    def on_gpu(self) -> bool:
        """Whether memory is that of a GPU."""
        return self.device.startswith("cuda")


def free_memory() -> int | None:
    """Memory that can be taken without swapping, where the system tells (Linux)."""
    return _kernel_figure("/proc/meminfo", "MemAvailable")


def _kernel_figure(file: str, key: str) -> int | None:
    """A figure of a file below /proc, in bytes; None where there is no such thing."""
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", Path(file).read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def measure_head(case: Case) -> tuple[float, int | None]:
    """Median seconds of a step, and bytes that the head took; for a process that has done nothing else."""
    torch.set_num_threads(case.threads)
    for compiled in ("rows", "lru", "records"):
        kernels.loops(compiled)  # numba takes memory of its own
    dist = Dist(device=torch.device(case.device))
    full = replace(case, name="full", num_ids=500, options={})
    first = _built(replace(case, num_ids=500) if case.name == DENSE else full, dist)
    _step(first, 2, 0)  # loads libraries; a larger batch would leave memory that hides a part of the peak
    del first
    before = peak_memory(dist.device)
    head = _built(case, dist)
    head.fill()  # in an empty container there is nothing to compare with
    times: list[float] = []
    while len(times) <= _UNTIMED or sum(times[_UNTIMED:]) < case.seconds:
        times.append(_step(head, case.batch_size, len(times)))
    after = peak_memory(dist.device)
    if before is None or after is None:
        return median(times[_UNTIMED:]), None
    return median(times[_UNTIMED:]), max(0, after - before)  # it may fit into what the first head has left


def _built(case: Case, dist: Dist) -> ClassHead | DenseSoftmax:
    if case.name == DENSE:
        return DenseSoftmax(case.num_ids, case.embedding_size, dist)
    return heads.build(case.name, case.num_ids, case.embedding_size, case.margin, dist, **case.options)


def _step(head: ClassHead | DenseSoftmax, batch_size: int, seed: int) -> float:
    """Seconds of one step on a random batch."""
    q_VBD, id_B, k_VBD = _batch(head, batch_size, seed)
    _wait(head.dist.device)
    before = time.perf_counter()
    head(q_VBD, id_B, k_VBD).loss.backward()
    head.is_finite()  # a loop asks it together with all else that its one wait is for
    head.finish_step(0.01)
    _wait(head.dist.device)
    return time.perf_counter() - before


def _batch(
    head: ClassHead | DenseSoftmax, batch_size: int, seed: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Random embeddings and identities in the form that the head needs."""
    generator = torch.Generator().manual_seed(seed)
    needs, device = head.needs, head.dist.device

    def views(count: int) -> Tensor:
        return torch.randn(count, batch_size, head.embedding_size, generator=generator).to(device)

    id_B = torch.randint(0, head.num_ids, (batch_size,), generator=generator)
    if needs.identity_pairs:
        other_B = torch.randint(0, head.num_ids, (batch_size,), generator=generator)
        other_B[: batch_size // 2] = id_B[: batch_size // 2]
        id_B = torch.stack([id_B, other_B])
    keys = views(needs.key_views) if needs.key_views else None
    return views(needs.query_views).requires_grad_(), id_B, keys  # ids stay on the host, as a loader's do


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int | None:
    """Most memory that this process has taken so far in bytes, where the system tells (Linux).

    Args:
        device: whose memory; a CPU's is all memory of the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _kernel_figure("/proc/self/status", "VmHWM")


if __name__ == "__main__":  # plan.bench starts a process for each case
    print(json.dumps(measure_head(Case(**json.loads(sys.argv[1])))))
