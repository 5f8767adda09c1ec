"""Measure on the user's machine: time and memory of every head over the number of identities."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from facescale import heads, registry
from facescale.config import Config, parse_value
from facescale.distributed import Dist, pick_device
from facescale.heads import HEADS, Bytes, ClassHead
from facescale.heads.centre_head import CentreHead
from facescale.heads.slot_head import SlotHead
from facescale.plan.advice import skeleton_of
from facescale.plan.memory import gb, head_skeleton
from facescale.plan.plan import Plan
from facescale.train.task import head_options

# V views, B batch, D embedding size

_UNTIMED = 2  # first steps: they allocate buffers
_FILL = 4096  # identities that enter a container at once
_FEW_CLASSES, _FEW_IDS, _FEW_IMAGES = 10_000, 100_000, 128  # that time is estimated from


@dataclass(frozen=True)
class HeadVariant:
    """A head with options.

    Attributes:
        name: of HEADS.
        options: beside the defaults.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        texts = {key: x if isinstance(x, str) else json.dumps(x) for key, x in self.options.items()}
        options = ",".join(f"{key}={text}" for key, text in texts.items())
        return f"{self.name}:{options}" if options else self.name


def parse_variants(text: str) -> list[HeadVariant]:
    """Heads with options, such as ``full,attfc:size=65536,unique=true,attfc:share=0.3`` (three of them).

    Raises:
        ValueError: unknown head or option, or one without value.
    """
    variants: list[HeadVariant] = []
    for part in text.split(","):
        name, _, setting = part.strip().partition(":")
        options: Mapping[str, Any] = {}
        if "=" in name and variants:  # one more option of the head before
            setting = part.strip()
            name, options = variants[-1].name, variants.pop().options
        registry.lookup("head", HEADS, name)
        if setting:
            key, _, value = setting.partition("=")
            options = {**options, key: parse_value(value)}
            problems = registry.option_problems("head", name, HEADS[name], options)
            if problems or not value:
                raise ValueError(problems[0] if problems else f"'{part}': write {name}:{key}=VALUE")
        variants.append(HeadVariant(name, options))
    return variants


def parse_counts(text: str) -> list[int]:
    """Numbers of identities, such as ``100k,1M,2500000``.

    Raises:
        ValueError: not such a list.
    """
    counts = []
    for part in text.split(","):
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", part.strip())
        if not match:
            raise ValueError(f"'{part}' is not a number of identities; write 5000, 100k or 1M")
        counts.append(round(float(match[1]) * {"": 1, "k": 10**3, "M": 10**6}[match[2]]))
    return counts


@dataclass(frozen=True)
class HeadFigures:
    """One head at one number of identities.

    Attributes:
        head: its name and options.
        num_ids: identities.
        step_ms: median time of a step: forward, backward, update; None where it could not be measured.
        images_per_second: batch size over that time.
        planned_bytes: what the head says it needs where ``peak_bytes`` is measured: on the GPU, or in memory.
        peak_bytes: what it took; None where that cannot be measured (a CPU that does not run Linux).
        problem: why nothing was measured, or nothing.
    """

    head: str
    num_ids: int
    step_ms: float | None
    images_per_second: float | None
    planned_bytes: int
    peak_bytes: int | None
    problem: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


@dataclass(frozen=True)
class _Case:
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
        return HeadVariant(self.name, self.options)

    @property
    def on_gpu(self) -> bool:
        return self.device.startswith("cuda")


def bench_heads(
    variants: Sequence[HeadVariant],
    num_ids: Sequence[int],
    *,
    embedding_size: int = 512,
    batch_size: int = 128,
    margin: str = "cosface",
    device: str = "auto",
    seconds: float = 2.0,
) -> Iterator[HeadFigures]:
    """Time and memory of heads, without a backbone, one after the other, each in a process of its own.

    Containers are full. A head that needs more than the machine has is not tried. Rows on disk go to the
    system's temporary folder, or to the option ``directory``, and are deleted afterwards.

    Args:
        variants: what to measure.
        num_ids: numbers of identities to try.
        embedding_size: D.
        batch_size: images of a step.
        margin: of all heads.
        device: see ``pick_device``.
        seconds: length of a measurement, at least 3 steps.

    Raises:
        ValueError: unknown head, margin, option or device.
    """
    picked = str(pick_device(device))
    rest = (embedding_size, batch_size, margin, picked, seconds, torch.get_num_threads())
    cases = [_Case(one.name, dict(one.options), count, *rest) for count in num_ids for one in variants]
    planned = [_planned(case) for case in cases]  # all mistakes come before the first measurement
    return (_measured(case, needed) for case, needed in zip(cases, planned, strict=True))


def _planned(case: _Case) -> Bytes:
    options = dict(case.options)
    if options.get("placement") == "disk":
        options["directory"] = _scratch(case)
    dist = Dist(device=torch.device(case.device))
    head = head_skeleton(case.name, case.num_ids, case.embedding_size, case.margin, dist, **options)
    return head.bytes_needed(case.batch_size)


def _scratch(case: _Case) -> Path:
    """Existing folder for rows on disk."""
    folder = Path(case.options.get("directory", gettempdir()))
    if not folder.is_dir():
        raise ValueError(f"the directory {folder} of {case.variant} does not exist; make it, or name another")
    return folder


def _lack(case: _Case, needed: Bytes) -> str:
    """What the machine has too little of for a case, or nothing."""
    wants: list[tuple[str, int, int | None]] = []
    if case.on_gpu:
        free = torch.cuda.mem_get_info(torch.device(case.device))[0]
        wants.append(("GPU memory", needed.device + needed.transient, free))
    in_memory = needed.host + (0 if case.on_gpu else needed.device + needed.transient)
    wants.append(("memory", in_memory, _free_memory()))
    if needed.disk:
        wants.append(("disk", needed.disk, shutil.disk_usage(_scratch(case)).free))
    return "; ".join(
        f"needs {gb(want)} of {what}; the machine has {gb(free)} free"
        for what, want, free in wants
        if free is not None and want > free
    )


def _free_memory() -> int | None:
    """Memory that can be taken without swapping, where the system tells (Linux)."""
    return _kernel_figure("/proc/meminfo", "MemAvailable")


def _kernel_figure(file: str, key: str) -> int | None:
    """A figure of a file below /proc, in bytes; None where there is no such thing."""
    try:
        found = re.search(rf"^{key}:\s+(\d+) kB", Path(file).read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def _measured(case: _Case, needed: Bytes) -> HeadFigures:
    """Figures of a case from a fresh process: memory that this one has freed would blur the peak."""
    planned = needed.device + needed.transient + (0 if case.on_gpu else needed.host)
    figures = HeadFigures(str(case.variant), case.num_ids, None, None, planned, None, _lack(case, needed))
    if figures.problem:
        return figures
    with ExitStack() as stack:
        if case.options.get("placement") == "disk":
            folder = stack.enter_context(TemporaryDirectory(dir=_scratch(case)))
            case = replace(case, options={**case.options, "directory": folder})
        done = subprocess.run(
            [sys.executable, "-m", "facescale.plan.bench", json.dumps(asdict(case))],
            stdout=subprocess.PIPE,
            text=True,
        )
    if done.returncode < 0:
        why = "probably for want of memory" if done.returncode == -signal.SIGKILL else "by the system"
        return replace(figures, problem=f"killed, {why} (signal {-done.returncode})")
    if done.returncode:
        raise RuntimeError(f"measuring {case.variant} at {case.num_ids} identities failed; see above")
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return replace(
        figures, step_ms=1e3 * seconds, images_per_second=case.batch_size / seconds, peak_bytes=peak
    )


def _measure(case: _Case) -> tuple[float, int | None]:
    """Median seconds of a step, and bytes that the head took; for a process that has done nothing else."""
    torch.set_num_threads(case.threads)
    dist = Dist(device=torch.device(case.device))
    first = heads.build("full", 500, case.embedding_size, case.margin, dist)
    _step(first, case.batch_size, 0)  # loads libraries
    del first
    before = _peak_memory(dist.device)
    head = heads.build(case.name, case.num_ids, case.embedding_size, case.margin, dist, **case.options)
    if isinstance(head, SlotHead):
        _fill(head)
    times: list[float] = []
    while len(times) <= _UNTIMED or sum(times[_UNTIMED:]) < case.seconds:
        times.append(_step(head, case.batch_size, len(times)))
    after = _peak_memory(dist.device)
    return median(times[_UNTIMED:]), None if before is None or after is None else after - before


def head_seconds(config: Config, plan: Plan) -> float:
    """Seconds that the head takes in an optimiser step, from a few steps of a smaller one.

    Time is taken to grow with the batch and the classes that a step looks at.
    """
    real, batch = skeleton_of(config, plan), plan.part_batch * plan.world_size
    here = plan.num_ids // plan.world_size
    few = min(here, here * _FEW_CLASSES // _looked_at(real, batch), _FEW_IDS)
    few, part = max(2, few), min(batch, _FEW_IMAGES)
    spec, margin = config.backbone, config.head.margin.name
    name, threads = config.head.name, torch.get_num_threads()
    with TemporaryDirectory() as folder:
        options = head_options(config, Path(folder))
        case = _Case(name, options, few, spec.embedding_size, part, margin, plan.device, 1.0, threads)
        seconds, _ = _measure(case)
    dist = Dist(device=torch.device(plan.device))
    small = head_skeleton(name, few, spec.embedding_size, margin, dist, **options)
    larger = _looked_at(real, batch) / _looked_at(small, part) * batch / part
    return seconds * larger * config.train.accumulate


def _looked_at(head: ClassHead, batch: int) -> int:
    """Classes of this process that a step compares a batch of all processes with."""
    if isinstance(head, SlotHead):
        return head.stop - head.first
    assert isinstance(head, CentreHead)
    return head.num_selected(batch) or head.store.stop_id - head.store.first_id


def _step(head: ClassHead, batch_size: int, seed: int) -> float:
    """Seconds of one step on a random batch."""
    q_VBD, id_B, k_VBD = _batch(head, batch_size, seed)
    _wait(head.dist.device)
    before = time.perf_counter()
    head(q_VBD, id_B, k_VBD).loss.backward()
    head.after_step(0.01)
    _wait(head.dist.device)
    return time.perf_counter() - before


def _fill(head: SlotHead) -> None:
    """Give every slot to somebody: in an empty container there is nothing to compare with."""
    for start in range(0, head.size, _FILL):
        head.pool.get(np.arange(start, min(start + _FILL, head.size)))
    head.set_extra_state(head.get_extra_state())  # all that depends on who sits where
    F.normalize(head.rows.normal_(), dim=-1, out=head.rows)


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


def _peak_memory(device: torch.device) -> int | None:
    """Most memory that this process has taken so far, where the system tells (Linux): of the GPU, or all."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _kernel_figure("/proc/self/status", "VmHWM")


def pyplot() -> Any:
    """The pyplot of matplotlib, set to draw into files.

    Raises:
        ValueError: matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise ValueError("plots need matplotlib; install facescale[plot]") from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot_heads(figures: Sequence[HeadFigures], path: Path) -> None:
    """Draw time and memory over the number of identities.

    Raises:
        ValueError: matplotlib is not installed.
    """
    plots = pyplot()
    figure, (left, right) = plots.subplots(1, 2, figsize=(11, 4.5))
    for head in dict.fromkeys(one.head for one in figures):
        mine = [one for one in figures if one.head == head]
        timed = [one for one in mine if one.step_ms is not None]
        left.plot([one.num_ids for one in timed], [one.step_ms for one in timed], "o-", label=head)
        memory = [(one.planned_bytes if one.peak_bytes is None else one.peak_bytes) / 1e9 for one in mine]
        right.plot([one.num_ids for one in mine], memory, "o-", label=head)
    left.set(xscale="log", yscale="log", xlabel="identities", ylabel="ms a step (head only)")
    right.set(xscale="log", yscale="log", xlabel="identities", ylabel="GB of the head (planned if not run)")
    right.legend(fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plots.close(figure)


if __name__ == "__main__":
    print(json.dumps(_measure(_Case(**json.loads(sys.argv[1])))))
