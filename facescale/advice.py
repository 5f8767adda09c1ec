"""Which head and placement fit a device, and whether sampling classes pays."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from facescale import heads, margins
from facescale.backbones.describe import describe
from facescale.config import Config
from facescale.dist import Dist
from facescale.estimate import BackboneBytes
from facescale.heads import Bytes
from facescale.plan import Plan

PAYS = 0.1  # share of a step's arithmetic from which a cheaper head is worth its approximation

# In the order in which they are to be preferred: exact first, then sampled, then those of constant size.
CANDIDATES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("full", {}),
    ("partial_fc", {"rate": 0.1}),
    ("partial_fc", {"rate": 0.1, "placement": "host"}),
    ("partial_fc", {"num_negatives": 8192, "placement": "disk", "directory": None}),
    ("f2c", {}),
    ("attfc", {}),
)


@dataclass(frozen=True)
class Candidate:
    """A head with options, and what it would need.

    Attributes:
        head: its name.
        options: beside the defaults.
        bytes: of the head, on one process.
        total: bytes on the device, with the backbone.
        fits: whether that is within the device memory (None where none was given).
    """

    head: str
    options: dict[str, Any]
    bytes: Bytes
    total: int
    fits: bool | None

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        sizes = {
            f"head on {key}" if key != "transient" else key: gb(n) for key, n in asdict(self.bytes).items()
        }
        words = " ".join(f"{key}={value}" for key, value in self.options.items() if value is not None)
        fits = "" if self.fits is None else "yes" if self.fits else "no"
        return {
            "head": f"{self.head} {words}".strip(),
            **sizes,
            "device in all": gb(self.total),
            "fits": fits,
        }


def gb(num_bytes: int) -> str:
    """Bytes as text."""
    return f"{num_bytes / 1e9:.2f} GB"


def head_bytes(name: str, options: dict[str, Any], config: Config, plan: Plan, rank: int = 0) -> Bytes:
    """Bytes of a head on one process, without making its rows (they are built on the meta device)."""
    margin = margins.build(config.head.margin.name, **config.head.margin.options)
    nowhere = Dist(rank, plan.world_size, torch.device("meta"))
    size = config.backbone.embedding_size
    return heads.build(name, plan.num_ids, size, margin, nowhere, **options).bytes_needed(plan.part_batch)


def compare(config: Config, plan: Plan, backbone: BackboneBytes, memory: int | None) -> list[Candidate]:
    """What each candidate would need for this data, backbone and number of processes."""
    found = []
    for name, options in CANDIDATES:
        needed = head_bytes(name, options, config, plan)
        total = backbone.total + needed.device + needed.transient
        found.append(Candidate(name, options, needed, total, None if memory is None else total <= memory))
    return found


def head_share(config: Config, plan: Plan) -> float:
    """Share of a step's multiply-adds that full softmax takes (three products of classes and embeddings)."""
    _, per_image = describe(config.backbone.name, config.backbone.embedding_size, **config.backbone.options)
    # each process: its share of the classes for the whole batch, as much as all classes for its own part
    of_head = 3 * plan.num_ids * config.backbone.embedding_size * plan.process_batch
    return of_head / (of_head + 3 * per_image * plan.process_batch)


def advise(share: float, candidates: Sequence[Candidate]) -> list[str]:
    """Sentences: whether sampling pays, and what to choose."""
    if share < PAYS:
        sentences = [
            f"full softmax is {share:.0%} of the arithmetic of a step: sampling classes would not pay"
        ]
    else:
        saved = 0.9 * share
        sentences = [
            f"full softmax is {share:.0%} of the arithmetic of a step: "
            f"partial_fc at rate 0.1 would save up to {saved:.0%} of it"
        ]
    fitting = [one for one in candidates if one.fits]
    if any(one.fits is not None for one in candidates):
        if not fitting:
            sentences.append(
                "nothing fits: use a smaller batch, train.accumulate, or backbone.checkpointing=true"
            )
        else:
            pick = fitting[0] if share < PAYS else next((o for o in fitting if o.head != "full"), fitting[0])
            sentences.append(f"choose {pick.row()['head']}")
    return sentences
