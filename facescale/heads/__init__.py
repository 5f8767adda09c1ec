"""Heads by name."""

from collections.abc import Callable
from typing import Any

from facescale import margins, registry
from facescale.distributed import Dist
from facescale.heads.attfc import AttFCHead
from facescale.heads.base import Bytes, ClassHead, HeadOutput, Needs
from facescale.heads.f2c import F2CHead
from facescale.heads.full import FullHead
from facescale.heads.partial_fc import PartialFCHead
from facescale.margins import Margin

HEADS: dict[str, Callable[..., ClassHead]] = {
    "full": FullHead,
    "partial_fc": PartialFCHead,
    "attfc": AttFCHead,
    "f2c": F2CHead,
}


def build(
    name: str,
    num_ids: int,
    embedding_size: int,
    margin: str | Margin = "arcface",
    dist: Dist | None = None,
    **options: Any,
) -> ClassHead:
    """Make the head ``name``.

    Args:
        name: one of HEADS.
        num_ids: number of identities.
        embedding_size: width of the embedding.
        margin: a margin, or the name of one with its default options.
        dist: this process among its peers (a single CPU process by default).
        **options: the head's own options.

    Raises:
        ValueError: unknown head, margin or option, a value out of range, or a margin this head cannot use.
    """
    built = margins.build(margin) if isinstance(margin, str) else margin
    if name in built.refuses:
        raise ValueError(
            f"margin {type(built).__name__} does not work with head '{name}': {built.refuses[name]}"
        )
    return registry.build("head", HEADS, name, num_ids, embedding_size, built, dist or Dist(), **options)


__all__ = ["HEADS", "Bytes", "ClassHead", "HeadOutput", "Needs", "build"]
