"""The published table of Partial FC on this machine: one process, every way to train on all identities.

Speed is that of a training step: the network, measured once, and the head, measured at each number of
identities. Memory is the plan of the network and the measured peak of the head. What this machine has no
memory for is planned, and says so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from facescale.bench.published import PUBLISHED, Published, published_cells
from facescale.config import load_config
from facescale.distributed import Dist, pick_device
from facescale.heads import Needs
from facescale.plan.bench import HeadFigures, bench_heads
from facescale.plan.dense import DENSE, measurable_skeleton
from facescale.plan.measure import HeadVariant
from facescale.plan.memory import backbone_bytes
from facescale.plan.plan import Counts, make_plan
from facescale.plan.timing import backbone_seconds, passes
from facescale.plan.units import amount

WAYS = {
    "dense": HeadVariant(DENSE),
    "full (exact)": HeadVariant("full"),
    "partial_fc 0.1": HeadVariant("partial_fc", {"rate": 0.1}),
    "attfc 0.3": HeadVariant("attfc", {"share": 0.3}),
    "f2c 1 %": HeadVariant("f2c", {"share": 0.01}),
}


@dataclass(frozen=True)
class Here:
    """One way at one number of identities.

    Attributes:
        way: of ``WAYS``.
        num_ids: identities.
        images_per_s: of a whole step; None where this machine has no memory for it.
        num_bytes: memory; planned where ``images_per_s`` is None.
    """

    way: str
    num_ids: int
    images_per_s: float | None
    num_bytes: int

    def cell(self) -> str:
        """As text."""
        if self.images_per_s is None:
            return f"planned {amount(self.num_bytes)}"
        return f"{amount(self.num_bytes)}, {self.images_per_s:,.1f} images/s"


def measure_here(
    num_ids: Sequence[int], backbone: str, batch_size: int, device: str, seconds: float
) -> Iterator[list[Here]]:
    """All of ``WAYS`` at each number of identities, measured where this machine has the memory.

    Args:
        num_ids: numbers of identities.
        backbone: name of the network.
        batch_size: images of a step.
        device: see ``pick_device``.
        seconds: length of a measurement.

    Raises:
        ValueError: unknown network or device.
    """
    config = load_config(None, [f"backbone.name={backbone}", f"train.batch_size={batch_size}"])
    dist = Dist(device=pick_device(device))
    plan = make_plan(config, dist, Counts(1000, 10_000))
    memory, one_view = backbone_bytes(config, plan), backbone_seconds(config, plan, Needs())
    sizes: dict[str, Any] = {"batch_size": batch_size, "device": str(dist.device), "seconds": seconds}
    figures = bench_heads(list(WAYS.values()), num_ids, **sizes)
    needs = {
        way: measurable_skeleton(one.name, 1000, 512, "cosface", dist, **one.options).needs
        for way, one in WAYS.items()
    }

    def here(way: str, head: HeadFigures) -> Here:
        network = one_view * passes(needs[way])
        speed = None if head.step_ms is None else batch_size / (network + head.step_ms / 1e3)
        peak = head.planned_bytes if head.peak_bytes is None else head.peak_bytes
        return Here(way, head.num_ids, speed, memory.total(needs[way]) + peak)

    return ([here(way, next(figures)) for way in WAYS] for _ in num_ids)


def here_row(found: Sequence[Here]) -> dict[str, Any]:
    """As a row of a table, with the published figures before."""
    count = found[0].num_ids
    nothing = Published(count, (None, None, None), (None, None, None))
    published = {one.num_ids: one for one in PUBLISHED}.get(count, nothing)
    cells = {f"here {one.way}": one.cell() for one in found}
    return {"identities": f"{count:,}", **published_cells(published), **cells}


def here_values(found: Sequence[Here]) -> list[dict[str, Any]]:
    """As plain values."""
    return [{**asdict(one), "measured": one.images_per_s is not None} for one in found]
