"""Evaluators by kind: what each measures is in its module."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from facescale.evaluate.protocols.open import open_protocol

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed


class Evaluator(Protocol):
    """Something that a network can be measured on."""

    def run(self, embed: "Embed") -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every scalar that ``embed`` achieves."""
        ...


# Openers: path (and options) -> Evaluator.
EVALS: dict[str, Callable[..., Evaluator]] = {
    "verification": open_protocol,
}

__all__ = ["EVALS", "Evaluator", "identification", "ijb", "metrics", "open_protocol"]
