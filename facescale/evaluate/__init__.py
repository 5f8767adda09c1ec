"""Evaluators by kind: what each measures is in its module."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from facescale.evaluate.protocols.data_set import EveryPair, Identification
from facescale.evaluate.protocols.ijb_lists import Ijb
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
    "identification": Identification,
    "all_pairs": EveryPair,
    "ijb": Ijb,
}

__all__ = ["EVALS", "Evaluator", "identification", "ijb", "metrics", "open_protocol"]
