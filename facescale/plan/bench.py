"""Measure on the user's machine: time and memory of every head over the number of identities."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

import torch

from facescale import registry
from facescale.config import parse_value
from facescale.data.spec import key_values
from facescale.distributed import Dist, pick_device
from facescale.heads import HEADS, Bytes
from facescale.plan.dense import DENSE, DenseSoftmax, measurable_skeleton
from facescale.plan.measure import Case, HeadVariant, free_memory
from facescale.plan.units import amount

# V views, B batch, D embedding size

_NAMED: Mapping[str, Any] = {**HEADS, DENSE: DenseSoftmax}  # what can be measured


def parse_variants(text: str) -> list[HeadVariant]:
    """Heads with options, such as ``full,attfc:size=65536,unique=true,attfc:share=0.3`` (three of them).

    ``dense`` is softmax as a plain program computes it, see ``DenseSoftmax``.

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
        registry.lookup("head", _NAMED, name)
        for key, value in key_values(setting):
            options = {**options, key: parse_value(value)}
            problems = registry.option_problems("head", name, _NAMED[name], options)
            if problems or not value:
                raise ValueError(problems[key] if value else f"'{part}': write {name}:{key}=VALUE")
        variants.append(HeadVariant(name, options))
    return variants


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
    cases = [Case(one.name, dict(one.options), count, *rest) for count in num_ids for one in variants]
    planned = [_planned(case) for case in cases]  # all mistakes come before the first measurement
    return (_measured(case, needed) for case, needed in zip(cases, planned, strict=True))


def _planned(case: Case) -> Bytes:
    options = dict(case.options)
    if options.get("placement") == "disk":
        options["directory"] = _scratch(case)
    dist = Dist(device=torch.device(case.device))
    head = measurable_skeleton(case.name, case.num_ids, case.embedding_size, case.margin, dist, **options)
    needed = head.bytes_needed(case.batch_size)
    batch = head.needs.batch_bytes(case.batch_size, case.embedding_size)
    return replace(needed, transient=needed.transient + batch)


def _scratch(case: Case) -> Path:
    """Existing folder for rows on disk."""
    folder = Path(case.options.get("directory", gettempdir()))
    if not folder.is_dir():
        raise ValueError(f"the directory {folder} of {case.variant} does not exist; make it, or name another")
    return folder


def _lack(case: Case, needed: Bytes) -> str:
    """What the machine has too little of for a case, or nothing."""
    wants: list[tuple[str, int, int | None]] = []
    if case.on_gpu:
        free = torch.cuda.mem_get_info(torch.device(case.device))[0]
        wants.append(("GPU memory", needed.device + needed.transient, free))
    in_memory = needed.host + (0 if case.on_gpu else needed.device + needed.transient)
    wants.append(("memory", in_memory, free_memory()))
    if needed.disk:
        wants.append(("disk", needed.disk, shutil.disk_usage(_scratch(case)).free))
    return "; ".join(
        f"needs {amount(want)} of {what}; the machine has {amount(free)} free"
        for what, want, free in wants
        if free is not None and want > free
    )


def _measured(case: Case, needed: Bytes) -> HeadFigures:
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
            [sys.executable, "-m", "facescale.plan.measure", json.dumps(asdict(case))],
            stdout=subprocess.PIPE,
            text=True,
        )
    if done.returncode < 0:
        why = "probably out of memory" if done.returncode == -signal.SIGKILL else "by the system"
        return replace(figures, problem=f"killed, {why} (signal {-done.returncode})")
    if done.returncode:
        raise RuntimeError(f"measuring {case.variant} at {case.num_ids} identities failed; see above")
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return replace(
        figures, step_ms=1e3 * seconds, images_per_second=case.batch_size / seconds, peak_bytes=peak
    )
