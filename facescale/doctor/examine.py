"""All examinations, in the order of their lines."""

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import torch

from facescale.backbones.profile import skeleton
from facescale.config import Config
from facescale.data import open_training_data
from facescale.distributed import pick_device
from facescale.doctor import host, network, training
from facescale.doctor.finding import Finding
from facescale.machine import Setting
from facescale.plan.advice import advice_for


def examine(config: Config, run: Path, device_name: str, settings: Sequence[Setting]) -> Iterator[Finding]:
    """Findings, one by one, as soon as they are made.

    Args:
        config: of the training that is meant.
        run: its folder.
        device_name: auto, cpu, cuda, ...
        settings: that ``facescale.machine.tune`` chose for this process.

    Raises:
        ValueError: no such device.
    """
    device = pick_device(device_name)
    yield from chain(host.versions(), host.devices(device), host.threads(settings), host.shared_memory())
    yield from chain(network.ports(), network.collective(device.type, torch.cuda.device_count()))
    try:
        reader, available = open_training_data(config.data), training.available_memory(device)
        advice = advice_for(config, 1, device, available, data=reader)
    except ValueError as error:
        yield Finding("data and config", "cannot be used, so what depends on them is not checked", str(error))
        return
    spec = config.backbone
    size = int(skeleton(spec.name, spec.embedding_size, **spec.options).input_size)  # type: ignore[arg-type]
    yield from host.disk(run, training.checkpoint_bytes(config, advice))
    yield from training.data(config, reader, size)
    yield from training.memory(advice, available)
    yield from training.rate(config, advice)
