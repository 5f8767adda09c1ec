"""The published table of memory over identities, beside what our plan says for the same training.

Published: arcface_torch, docs/speed_benchmark.md: IResNet-50, fp16, 8 x V100-32GB, 128 images on each; data
parallel (every GPU holds all classes), model parallel (classes are sharded) and Partial FC at rate 0.1 (the
same with sampled classes). The plan is for the same network, batch and number of processes in fp16.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch

from facescale.config import load_config
from facescale.distributed import Dist
from facescale.plan.advice import candidate
from facescale.plan.memory import BackboneBytes, backbone_bytes
from facescale.plan.plan import Counts, make_plan
from facescale.plan.units import amount

_PROCESSES, _BATCH, _IMAGES_PER_ID = 8, 1024, 10


@dataclass(frozen=True)
class Published:
    """A row of the published table; None where it ran out of memory or was not measured.

    Attributes:
        num_ids: identities.
        speed: images a second: data parallel, model parallel, Partial FC.
        megabytes: of each GPU: the same.
    """

    num_ids: int
    speed: tuple[int | None, int | None, int | None]
    megabytes: tuple[int | None, int | None, int | None]


PUBLISHED = (
    Published(125_000, (4681, 4824, 5004), (7358, 5306, 4868)),
    Published(250_000, (4047, 4521, 4976), (None, None, None)),
    Published(500_000, (3087, 4013, 4900), (None, None, None)),
    Published(1_000_000, (2090, 3449, 4803), (23708, 9966, 5620)),
    Published(1_400_000, (1672, 3043, 4738), (32252, 11178, 6056)),
    Published(2_000_000, (None, 2593, 4626), (None, 13978, 6472)),
    Published(4_000_000, (None, 1748, 4208), (None, 23238, 8284)),
    Published(5_500_000, (None, 1389, 3975), (None, 32188, 9854)),
    Published(8_000_000, (None, None, 3565), (None, None, 12310)),
    Published(16_000_000, (None, None, 2679), (None, None, 19950)),
    Published(29_000_000, (None, None, 1855), (None, None, 32324)),
)
HEADS = {
    "full": ["head.name=full"],
    "partial_fc 0.1": ["head.name=partial_fc", "head.rate=0.1"],
    "partial_fc 0.1, rows on host": ["head.name=partial_fc", "head.rate=0.1", "head.placement=host"],
    "attfc 0.3": ["head.name=attfc"],
    "f2c 1 %": ["head.name=f2c"],
}
_NETWORK = ["backbone.name=r50", f"train.batch_size={_BATCH}", "train.precision=fp16"]
COLUMNS = ("data parallel", "model parallel", "Partial FC 0.1")


def planned_bytes(num_ids: int) -> dict[str, int]:
    """Planned memory of each of the 8 GPUs in bytes, for each of ``HEADS``."""
    counts, dist = Counts(num_ids, num_ids * _IMAGES_PER_ID), Dist(0, _PROCESSES, torch.device("cuda"))
    found: dict[str, int] = {}
    for name, settings in HEADS.items():
        config = load_config(None, [*_NETWORK, *settings])
        plan = make_plan(config, dist, counts)
        found[name] = candidate(config, plan, _backbone(), memory=None).total
    return found


@cache
def _backbone() -> BackboneBytes:
    """The network's memory, which does not depend on the identities."""
    config = load_config(None, _NETWORK)
    dist = Dist(0, _PROCESSES, torch.device("cuda"))
    return backbone_bytes(config, make_plan(config, dist, Counts(1000, 10_000)))


def rows() -> Iterator[dict[str, Any]]:
    """Rows of the table: published memory and speed, then the planned memory of our heads."""
    for one in PUBLISHED:
        planned = {f"planned {name}": amount(size) for name, size in planned_bytes(one.num_ids).items()}
        yield {"identities": f"{one.num_ids:,}", **published_cells(one), **planned}


def published_cells(one: Published) -> dict[str, str]:
    """Published memory and speed as cells of a table."""
    return {
        f"published {name}": _cell(speed, size)
        for name, speed, size in zip(COLUMNS, one.speed, one.megabytes, strict=True)
    }


def _cell(speed: int | None, megabytes: int | None) -> str:
    size = "" if megabytes is None else f"{megabytes / 1e3:.2f} GB, "
    return "-" if speed is None else f"{size}{speed:,} images/s"
