"""Which head and placement fit a device, and whether sampling classes pays."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from facescale import margins
from facescale.backbones.profile import describe
from facescale.config import Config, HeadConfig
from facescale.data import open_training_data
from facescale.data.readers.base import Reader
from facescale.distributed import Dist
from facescale.heads import Bytes
from facescale.plan.memory import BackboneBytes, backbone_bytes, skeleton_of
from facescale.plan.people import people, with_old_people
from facescale.plan.plan import Counts, Plan, make_plan
from facescale.plan.timing import backbone_seconds, head_seconds
from facescale.plan.units import amount

PAYS = 0.1  # share of a step's arithmetic from which a cheaper head is worth its approximation

# Of a table, by the attributes of ``Bytes``.
_COLUMNS = {
    **{place: f"head on {place}" for place in ("device", "host", "disk")},
    "transient": "transient",
    "kept": "of it logits",
}

# In the order in which they are to be preferred: exact first, then sampled, then those of constant size.
CANDIDATES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("full", {}),
    ("partial_fc", {"rate": 0.1}),
    ("partial_fc", {"rate": 0.1, "placement": "host"}),
    ("partial_fc", {"num_negatives": 8192, "placement": "disk"}),
    ("f2c", {}),
    ("attfc", {}),
)


@dataclass(frozen=True)
class Candidate:
    """A head with options, and what it would need.

    Attributes:
        head: its name.
        options: beside the defaults.
        bytes: of the head, on the process with most classes.
        total: bytes on the device, with the backbone and the twin.
        fits: whether that is within the device memory (None where none was given).
        copy: bytes in host memory while a checkpoint is written in the background.
    """

    head: str
    options: dict[str, Any]
    bytes: Bytes
    total: int
    fits: bool | None
    copy: int = 0

    @property
    def words(self) -> str:
        """Name and options as text."""
        return " ".join([self.head, *(f"{key}={value}" for key, value in self.options.items())])

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        sizes = {_COLUMNS[key]: amount(n) for key, n in asdict(self.bytes).items()}
        if self.copy:
            sizes["checkpoint copy"] = amount(self.copy)
        fits = "" if self.fits is None else "yes" if self.fits else "no"
        return {"head": self.words, **sizes, "device in all": amount(self.total), "fits": fits}


def compare(config: Config, plan: Plan, backbone: BackboneBytes, memory: int | None) -> list[Candidate]:
    """What the head of the config needs, and what each candidate would for the same run.

    Candidates that the margin does not work with are left out.

    Args:
        config: of the run.
        plan: of the run.
        backbone: its bytes.
        memory: of one device, bytes.

    Raises:
        ValueError: the head of the config cannot be made.
    """
    found = [candidate(config, plan, backbone, memory)]
    refusing = margins.build(config.head.margin.name, **config.head.margin.options).refuses
    for name, options in CANDIDATES:
        if name not in refusing and (name, options) != (found[0].head, found[0].options):
            head = HeadConfig(name=name, margin=config.head.margin, **options)
            other = config.model_copy(update={"head": head})
            found.append(candidate(other, plan, backbone, memory))
    return found


def candidate(config: Config, plan: Plan, backbone: BackboneBytes, memory: int | None) -> Candidate:
    """What the head of the config needs, alone and with the backbone; arguments as in ``compare``."""
    head = skeleton_of(config, plan)
    needed = head.bytes_needed(plan.part_batch)
    total = backbone.total(head.needs) + needed.device + needed.transient
    total += head.needs.batch_bytes(plan.part_batch, config.backbone.embedding_size)
    copy = backbone.saved(head.needs) + head.row_bytes() if config.checkpoint.background else 0
    if plan.device == "cpu":
        total += needed.host + copy
    fits = None if memory is None else total <= memory
    return Candidate(config.head.name, config.head.options, needed, total, fits, copy)


def head_share(config: Config, plan: Plan) -> float:
    """Share of a step's multiply-adds that full softmax takes (three products of classes and embeddings)."""
    _, per_image = describe(config.backbone.name, config.backbone.embedding_size, **config.backbone.options)
    # each process: its share of the classes for the whole batch, as much as all classes for its own part
    of_head = 3 * plan.num_ids * config.backbone.embedding_size * plan.process_batch
    return of_head / (of_head + 3 * per_image * plan.process_batch)


def advise(share: float, configured: Candidate, others: Sequence[Candidate]) -> list[str]:
    """Sentences: whether sampling pays, whether the head of the config fits, and what to choose.

    Args:
        share: see ``head_share``.
        configured: the head of the config.
        others: what else there is, in the order of preference.
    """
    part = f"full softmax is {share:.0%} of the arithmetic of a step"
    if share < PAYS:
        sentences = [f"{part}: sampling classes would not pay"]
    else:
        sentences = [f"{part}: partial_fc at rate 0.1 would save up to {0.9 * share:.0%} of it"]
    if configured.fits is None:
        return sentences
    if configured.fits:
        sentences.append(f"the head of the config, {configured.words}, fits")
    fitting = [one for one in (configured, *others) if one.fits]
    if not fitting:
        sentences.append(
            "nothing fits: use a smaller batch, train.accumulate, backbone.checkpointing=true, or on several "
            "processes distributed.shard_backbone=true"
        )
    else:
        exact = [one for one in fitting if one.head == "full"]
        cheaper = [one for one in fitting if one.head != "full"]
        pick = (exact + cheaper)[0] if share < PAYS else (cheaper + exact)[0]
        sentences.append(f"choose {pick.words}")
    return sentences


@dataclass(frozen=True)
class Advice:
    """All that ``facescale plan`` says of a run.

    Attributes:
        plan: numbers derived from config, data and processes.
        backbone: bytes of the backbone on one process.
        heads: the head of the config, then what else there is.
        head_share: share of a step's multiply-adds that full softmax takes.
        sentences: what to choose.
        step_seconds: of the network and of the head in one step, where they were timed.
    """

    plan: Plan
    backbone: BackboneBytes
    heads: list[Candidate]
    head_share: float
    sentences: list[str]
    step_seconds: tuple[float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        values = {
            "plan": self.plan.to_dict(),
            "backbone_bytes": asdict(self.backbone),
            "heads": [asdict(one) for one in self.heads],
            "head_share": self.head_share,
            "advice": self.sentences,
        }
        if self.step_seconds:
            values["step_seconds"] = dict(zip(("backbone", "head"), self.step_seconds, strict=True))
        return values

    def text(self, table: Callable[[list[dict[str, Any]]], str]) -> str:
        """As text; ``table`` lays out rows."""
        lines = [f"{key:18}{value}" for key, value in self.plan.to_dict().items()]
        sizes = asdict(self.backbone)
        shares = sizes.pop("shares")
        lines += [f"backbone {key:12}{amount(value)}" for key, value in sizes.items()]
        lines += [f"{'backbone shares':21}{shares}"] if shares > 1 else []
        if self.step_seconds:
            network, head = self.step_seconds
            hours = (network + head) * self.plan.total_steps / 3600
            lines.append(
                f"about {network + head:.2f} s a step on this machine: the network {network:.2f}, the head "
                f"{head:.2f}; {hours:.1f} h in all"
            )
        rows = table([one.row() for one in self.heads])
        return "\n".join([*lines, "", rows, "", *self.sentences])


def advice_for(
    config: Config,
    processes: int,
    device: torch.device,
    memory: int | None,
    timed: bool = False,
    data: Counts | Reader | None = None,
) -> Advice:
    """Plan a run without starting it, and compare what heads would need.

    Args:
        config: of the run.
        processes: how many will train.
        device: of each.
        memory: of one device, bytes; None says nothing of what fits.
        timed: also estimate the time of a step, from a few seconds of the real network and head.
        data: of the run, opened or by its numbers; None opens it. People of an old run that the head keeps
            are added.

    Raises:
        ValueError: data or config cannot be used.
    """
    data = open_training_data(config.data) if data is None else data
    counted = with_old_people(config, data) if isinstance(data, Counts) else people(config, data)
    plan = make_plan(config, Dist(0, processes, device), counted)
    backbone = backbone_bytes(config, plan)
    found = compare(config, plan, backbone, memory)
    share = head_share(config, plan)
    seconds = None
    if timed:
        seconds = backbone_seconds(config, plan, skeleton_of(config, plan).needs), head_seconds(config, plan)
    return Advice(plan, backbone, found, share, advise(share, found[0], found[1:]), seconds)
