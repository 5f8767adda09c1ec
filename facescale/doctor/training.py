"""The config on this machine: data, memory, learning rate."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import torch

from facescale.config import Config
from facescale.data.images import ReaderImages
from facescale.data.loading.iterate import iter_images
from facescale.data.readers.base import Reader
from facescale.doctor.finding import Finding
from facescale.plan.advice import Advice
from facescale.plan.units import amount

_RECORDS = 32  # that are read, spread over the set
_FEW_IMAGES = 2.0  # images of an identity, on average, below which little can be learned
_MEMORY = Path("/proc/meminfo")

# Rates at 512 images per step beyond which trainings of this kind diverged or stood still
_RATES = {"sgd": (1e-3, 0.4), "adamw": (1e-6, 2e-3)}
_TRANSFORMERS = ("vit",)


def data(config: Config, reader: Reader, size: int) -> Iterator[Finding]:
    """Read a few records.

    Args:
        config: says how they are prepared.
        reader: the images.
        size: that the network takes, pixels.
    """
    count = len(reader)
    chosen = sorted({place * (count - 1) // max(1, _RECORDS - 1) for place in range(_RECORDS)})
    bad: dict[int, str] = {}
    how = {"batch_size": _RECORDS, "size": size, "resize": config.data.resize, "bad": bad}
    with closing(iter_images(ReaderImages(reader), chosen, **how)) as batches:  # type: ignore[arg-type]
        varied = any(len(batch) and float(batch.float().std()) > 1 for batch, _ in batches)
    each = count / reader.num_ids
    text = (
        f"{count:,} images of {reader.num_ids:,} identities; {len(chosen) - len(bad)} of {len(chosen)} read"
    )
    fix = ""
    if bad:
        index, reason = next(iter(bad.items()))
        text += f", not '{reader.key(index)}' ({reason})"
        fix = "facescale inspect names all such; prepare or remove them"
    elif not varied:
        fix = "their pixels are all alike: check what the files show"
    elif each < _FEW_IMAGES:
        fix = f"{each:.1f} images of each are few to learn from: use data.min_images = 2"
    yield Finding("data", text, fix)


def memory(advice: Advice, available: int | None) -> Iterator[Finding]:
    """Whether the planned training fits.

    Args:
        advice: of the plan.
        available: bytes on the device; None if not known.
    """
    head = advice.heads[0]
    room = "unknown" if available is None else amount(available)
    text = f"about {amount(head.total)} of {room} on the device"
    fix = "" if head.fits is not False else "; ".join(advice.sentences[1:])
    yield Finding("plan", f"{advice.plan.total_steps:,} steps, {text}", fix)


def available_memory(device: torch.device) -> int | None:
    """Bytes that are free on the device; of the host for a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = dict(line.split(":") for line in _MEMORY.read_text("ascii").splitlines())
    except (OSError, ValueError):
        return None
    return int(lines["MemAvailable"].split()[0]) << 10


def checkpoint_bytes(config: Config, advice: Advice) -> int:
    """Of the checkpoints that are kept, and of one that is written, about."""
    backbone = advice.backbone
    rows = advice.heads[0].bytes
    one = backbone.weights + backbone.average + backbone.optimizer
    one += (rows.device + rows.host + rows.disk) * advice.plan.world_size
    return one * (config.checkpoint.keep + 2)  # the best one besides


def rate(config: Config, advice: Advice) -> Iterator[Finding]:
    """Whether the learning rate is one that such trainings survive."""
    optim, plan = config.optim, advice.plan
    base = optim.lr * 512 / optim.reference_batch
    least, most = _RATES[optim.name]
    text = f"{optim.name}, {plan.lr:.3g} at this batch ({base:.3g} at 512 images)"
    fix = ""
    if base > most:
        fix = f"trainings above {most:g} at 512 images diverge: lower optim.lr"
    elif base < least:
        fix = f"trainings below {least:g} at 512 images hardly move: raise optim.lr"
    elif optim.name == "sgd" and config.backbone.name.startswith(_TRANSFORMERS):
        fix = f"{config.backbone.name} needs optim.name = 'adamw' and optim.lr about 5e-4"
    elif plan.lr > most and optim.warmup in ("0%", "0 steps", "0 epochs"):
        fix = "such a large batch needs a warm-up: optim.warmup = '1 epoch'"
    yield Finding("learning rate", text, fix)
