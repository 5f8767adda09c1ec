"""What commands that many machines share have in common: --shard and --cluster."""

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from facescale.jobs import Part

_NAMED = 20  # parts that are named

ShardOption = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Do part I of N, as a job of an array; the last one joins the parts."),
]
ClusterOption = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers do it (extra 'cluster').")
]


def part_of(shard: str | None, cluster: str = "") -> "Part | None":
    """The part that ``--shard`` names; None without it.

    Raises:
        ValueError: no part, or a cluster, too.
    """
    from facescale.jobs import Part

    if shard is None:
        return None
    if cluster:
        raise ValueError("--shard and --cluster both share out the work; give one of them")
    return Part.parse(shard)


def waiting_text(waiting: "list[Part]") -> str:
    """What becomes of a part that is done."""
    if not waiting:
        return "another job joins the parts"
    named = ", ".join(map(str, waiting[:_NAMED])) + (", ..." if len(waiting) > _NAMED else "")
    return f"not done yet: {named}; the job that ends last joins the parts"
