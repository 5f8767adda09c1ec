"""Measure on the user's machine: time and memory of every head over the number of identities."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facescale import heads
from facescale.dist import Dist, pick_device
from facescale.heads import ClassHead

# V views, B batch, D embedding size


@dataclass(frozen=True)
class HeadFigures:
    """One head at one number of identities.

    Attributes:
        head: its name.
        num_ids: identities.
        step_ms: median time of a step: forward, backward, update.
        images_per_second: batch size over that time.
        planned_bytes: what the head says it needs, device and host.
        peak_bytes: what it took beyond what was there before; None where that cannot be measured (a CPU that
            does not run Linux).
    """

    head: str
    num_ids: int
    step_ms: float
    images_per_second: float
    planned_bytes: int
    peak_bytes: int | None

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def bench_heads(
    names: Sequence[str] = ("full", "partial_fc", "attfc", "f2c"),
    num_ids: Sequence[int] = (10_000, 100_000, 1_000_000),
    *,
    embedding_size: int = 512,
    batch_size: int = 128,
    margin: str = "cosface",
    device: str = "auto",
    seconds: float = 2.0,
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[HeadFigures]:
    """Time and memory of heads, without a backbone.

    Args:
        names: of HEADS.
        num_ids: numbers of identities to try.
        embedding_size: D.
        batch_size: images of a step.
        margin: of all heads.
        device: see ``pick_device``.
        seconds: length of a measurement, at least 3 steps.
        options: head name -> its options.

    Raises:
        ValueError: unknown head, margin or option.
    """
    dist = Dist(device=pick_device(device))
    chosen = options or {}
    return [
        _measure(name, count, embedding_size, batch_size, margin, dist, seconds, chosen.get(name, {}))
        for count in num_ids
        for name in names
    ]


def _measure(
    name: str,
    num_ids: int,
    embedding_size: int,
    batch_size: int,
    margin: str,
    dist: Dist,
    seconds: float,
    options: Mapping[str, Any],
) -> HeadFigures:
    memory = _PeakMemory(dist.device)
    head = heads.build(name, num_ids, embedding_size, margin, dist, **options).to(dist.device)
    times: list[float] = []
    for number in range(10_000):
        q_VBD, id_B, k_VBD = _batch(head, batch_size, number)
        _wait(dist.device)
        before = time.perf_counter()
        head(q_VBD, id_B, k_VBD).loss.backward()
        head.after_step(0.01)
        _wait(dist.device)
        times.append(time.perf_counter() - before)
        if number >= 4 and sum(times) > seconds:
            break
    median = sorted(times[2:])[(len(times) - 2) // 2]  # the first steps allocate
    plan = head.bytes_needed(batch_size)
    return HeadFigures(
        head=name,
        num_ids=num_ids,
        step_ms=1e3 * median,
        images_per_second=batch_size / median,
        planned_bytes=plan.device + plan.host + plan.transient,
        peak_bytes=memory.read(),
    )


def _batch(head: ClassHead, batch_size: int, seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
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
    return views(needs.query_views).requires_grad_(), id_B.to(device), keys


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class _PeakMemory:
    """Most memory taken since it was made, beyond what was in use then."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._status = Path("/proc/self/status")
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
        elif self._status.exists():
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
            self._before = self._figure("VmRSS")

    def read(self) -> int | None:
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before
        return max(0, self._figure("VmHWM") - self._before) if self._status.exists() else None

    def _figure(self, key: str) -> int:
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) * 1024


def plot_heads(figures: Sequence[HeadFigures], path: Path) -> None:
    """Draw time and memory over the number of identities.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ValueError("plots need matplotlib; install facescale[plot]") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4))
    for name in dict.fromkeys(one.head for one in figures):
        mine = [one for one in figures if one.head == name]
        counts = [one.num_ids for one in mine]
        left.plot(counts, [one.images_per_second for one in mine], "o-", label=name)
        right.plot(counts, [(one.peak_bytes or one.planned_bytes) / 2**30 for one in mine], "o-", label=name)
    left.set(xscale="log", yscale="log", xlabel="identities", ylabel="images per second (head only)")
    right.set(xscale="log", yscale="log", xlabel="identities", ylabel="memory of the head, GiB")
    left.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
