"""Everything that follows from the config, the data and the machine, before anything runs."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol, cast

import numpy as np
import torch

from facescale import heads, margins
from facescale.config import Config, DataConfig, duration_steps
from facescale.data.readers.base import Reader, image_sources
from facescale.data.sampling.base import num_items
from facescale.data.sampling.draws import drawn_per_epoch
from facescale.distributed import Dist
from facescale.machine.bf16 import multiplies_bf16
from facescale.plan.check import check_components


@dataclass(frozen=True)
class Plan:
    """Derived numbers of a run.

    Attributes:
        num_ids: identities.
        num_images: images.
        world_size: processes.
        process_batch: images of a step on one process.
        part_batch: images of one part of it (gradient accumulation).
        steps_per_epoch: optimizer steps in one pass over the data.
        total_steps: optimizer steps of the run.
        checkpoint_steps: steps between checkpoints.
        eval_steps: steps between evaluations.
        ramp_steps: steps over which the margin grows.
        lr: rate at this batch after the warm-up (scaled linearly from the reference batch).
        precision: bf16, fp16 or fp32.
        device: where it computes.
    """

    num_ids: int
    num_images: int
    world_size: int
    process_batch: int
    part_batch: int
    steps_per_epoch: int
    total_steps: int
    checkpoint_steps: int
    eval_steps: int
    ramp_steps: int
    lr: float
    precision: str
    device: str

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def summary(self) -> str:
        """One line for people."""
        parts = self.process_batch // self.part_batch
        return (
            f"{self.num_images} images of {self.num_ids} identities; batch "
            f"{self.process_batch * self.world_size} on {self.world_size} "
            f"process{'es' if self.world_size > 1 else ''}{f' in {parts} parts each' if parts > 1 else ''}, "
            f"{self.device}, {self.precision}; {self.total_steps} steps, {self.steps_per_epoch} per epoch; "
            f"learning rate {self.lr:.4g} at this batch"
        )


class Counted(Protocol):
    """What a plan needs to know of the data: a reader has it."""

    @property
    def num_ids(self) -> int:
        """Number of identities."""
        ...

    def __len__(self) -> int:
        """Number of images."""
        ...


@dataclass(frozen=True)
class Counts:
    """Data that is not at hand, by its numbers.

    Attributes:
        num_ids: identities.
        num_images: images.
    """

    num_ids: int
    num_images: int

    def __len__(self) -> int:
        """Number of images."""
        return self.num_images


def pick_precision(name: str, device: torch.device) -> str:
    """Resolve ``auto``: bf16 where the device multiplies in it, else fp32.

    Raises:
        ValueError: fp16 on a CPU, where it is too slow to be of use.
    """
    if name == "fp16" and device.type == "cpu":
        raise ValueError("train.precision = fp16 is not for the CPU; use auto, bf16 or fp32")
    if name != "auto":
        return name
    return "bf16" if multiplies_bf16(device) else "fp32"  # without units autocast only adds conversions


def make_plan(config: Config, dist: Dist, reader: Counted) -> Plan:
    """Derive the plan of a run.

    Raises:
        ValueError: the parts of the config do not fit each other, the data or the machine.
    """
    check_components(config)
    train, precision = config.train, pick_precision(config.train.precision, dist.device)
    if config.distributed.shard_backbone and dist.world_size > 1:
        _check_shared(config, precision)
    part_batch = check_batch(train.batch_size, dist.world_size, train.accumulate)
    needs = getattr(heads.HEADS[config.head.name], "needs", heads.Needs())
    drawn = _drawn(config.data, reader, part_batch)
    steps_per_epoch = num_items(drawn, needs.identity_pairs) // train.batch_size
    if steps_per_epoch == 0:
        smaller = 1 << (max(4, len(reader)).bit_length() - 2)
        raise ValueError(
            f"train.batch_size = {train.batch_size} is larger than the data set ({len(reader)} images); "
            f"use a smaller batch, such as --set train.batch_size={smaller}"
        )
    total = duration_steps(train.duration, steps_per_epoch)
    if total < 1:
        raise ValueError(f"train.duration = '{train.duration}' is shorter than one step")

    def steps(text: str) -> int:
        return max(1, duration_steps(text, steps_per_epoch, total))

    return Plan(
        num_ids=reader.num_ids,
        num_images=len(reader),
        world_size=dist.world_size,
        process_batch=part_batch * train.accumulate,
        part_batch=part_batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        checkpoint_steps=steps(config.checkpoint.every),
        eval_steps=steps(config.eval.every),
        ramp_steps=duration_steps(config.head.margin.ramp, steps_per_epoch, total),
        lr=config.optim.lr * train.batch_size / config.optim.reference_batch,
        precision=precision,
        device=str(dist.device),
    )


def _drawn(data: DataConfig, reader: Counted, part_batch: int) -> int:
    """Images drawn in an epoch.

    Raises:
        ValueError: parts of a batch that groups of an identity do not fill; weights that do not fit.
    """
    group, counts_S = data.images_per_identity, np.array([len(reader)])
    if data.sampling == "pxk" and part_batch % group:
        raise ValueError(
            f"each process computes parts of {part_batch} images, which data.images_per_identity = {group}"
            " does not divide; choose another batch size or number of images"
        )
    if data.weights:
        known = hasattr(reader, "ids")  # else the sources count as equally large
        even = np.full(len(data.weights), len(reader) // len(data.weights))
        counts_S = np.bincount(image_sources(cast(Reader, reader))) if known else even
    return drawn_per_epoch(len(reader), data.sampling, group, counts_S, data.weights)


def _check_shared(config: Config, precision: str) -> None:
    """Refuse what does not go with a backbone that is divided over processes.

    Raises:
        ValueError: fp16 with a margin that is trained; torch scales gradients of both together.
    """
    margin = config.head.margin
    if precision == "fp16" and list(margins.build(margin.name, **margin.options).parameters()):
        raise ValueError(
            "distributed.shard_backbone with train.precision = fp16 does not go with the margin "
            f"'{margin.name}', which has a weight of its own; use train.precision = bf16 or fp32"
        )


def check_batch(batch_size: int, world_size: int, accumulate: int) -> int:
    """Images per process and part.

    Raises:
        ValueError: the total batch does not divide.
    """
    parts = world_size * accumulate
    if batch_size % parts:
        raise ValueError(
            f"train.batch_size = {batch_size} does not divide by {world_size} processes x {accumulate} parts;"
            " "
            f"use a multiple of {parts}, for example {max(1, math.ceil(batch_size / parts)) * parts}"
        )
    return batch_size // parts
