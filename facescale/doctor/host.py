"""The machine: versions, devices, threads, shared memory, disk."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from facescale.doctor.finding import Finding
from facescale.machine import Setting
from facescale.machine.bf16 import multiplies_bf16
from facescale.machine.cores import free_cores
from facescale.plan.units import amount

_OLDEST_TORCH = (2, 8)
_PROBE = 64 << 20  # bytes written to measure a disk
_SLOW = 50e6  # bytes per second
_SHARED = Path("/dev/shm")
_LEAST_SHARED = 64 << 20
_NVIDIA = Path("/proc/driver/nvidia/version")


def versions() -> Iterator[Finding]:
    """Python, torch and what makes loading fast."""
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    numpy = importlib.metadata.version("numpy")
    found = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {numpy}"
    yield Finding("versions", found, "" if release >= _OLDEST_TORCH else "pip install 'torch>=2.8'")
    if importlib.util.find_spec("numba") is None:
        yield Finding("compiled loops", "numba is not installed", "pip install 'facescale[fast]'")


def devices(device: torch.device) -> Iterator[Finding]:
    """What computes, and GPUs that this torch cannot use."""
    if device.type == "cuda":
        for number in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(number)
            free, total = torch.cuda.mem_get_info(number)
            busy = "another program uses it: end that, or choose another GPU" if free < total * 0.9 else ""
            text = f"{about.name}, {amount(free)} of {amount(total)} free"
            yield Finding(f"cuda:{number}", text, busy)
        return
    units = ", bf16 units" if multiplies_bf16(device) else ""
    text = f"{device}, {platform.processor() or platform.machine()}{units}"
    lost = device.type == "cpu" and _NVIDIA.is_file()
    fix = "a GPU is there, but this torch cannot use it: install a CUDA build of torch" if lost else ""
    yield Finding("device", text, fix)


def threads(settings: Sequence[Setting]) -> Iterator[Finding]:
    """What was chosen for threads and memory, and why."""
    cores, why = free_cores()
    for one in settings:
        more = one.name == "threads" and one.value.isdigit() and int(one.value) > cores
        fix = f"unset it, or use at most {cores} ({why})" if more else ""
        yield Finding(one.name, f"{one.value} ({one.why})", fix)


def shared_memory() -> Iterator[Finding]:
    """What processes of one host exchange data through (NCCL)."""
    if _SHARED.is_dir():
        free = shutil.disk_usage(_SHARED).free
        fix = "docker run --shm-size=1g (or --ipc=host)" if free < _LEAST_SHARED else ""
        yield Finding("shared memory", f"{amount(free)} free", fix)


def disk(folder: Path, needed: int) -> Iterator[Finding]:
    """Space and speed of the disk that the run goes to.

    Args:
        folder: of the run; need not exist.
        needed: bytes of all checkpoints that are kept, and one more; 0 if not known.
    """
    place = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.is_dir())
    free = shutil.disk_usage(place).free
    lacking = amount(max(0, needed - free))
    short = f"free {lacking}, lower checkpoint.keep, or use another --run" if free < needed else ""
    wanted = f", the checkpoints need about {amount(needed)}" if needed else ""
    yield Finding("disk space", f"{amount(free)} free at {place}{wanted}", short)
    if free < 2 * _PROBE:
        return
    try:
        speed = _write_speed(place)
    except OSError as error:
        yield Finding("disk", f"cannot write to {place} ({error.strerror})", "use another --run folder")
        return
    slow = "checkpoints will take long: use a local disk, or checkpoint.background = true"
    yield Finding("disk speed", f"{speed / 1e6:.0f} MB/s at {place}", slow if speed < _SLOW else "")


def _write_speed(place: Path) -> float:
    """Bytes per second, up to the disk."""
    path = place / f".facescale_doctor_{os.getpid()}"
    content = os.urandom(1 << 20)
    before = time.monotonic()
    try:
        with path.open("wb") as file:
            for _ in range(_PROBE >> 20):
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        return _PROBE / (time.monotonic() - before)
    finally:
        path.unlink(missing_ok=True)
