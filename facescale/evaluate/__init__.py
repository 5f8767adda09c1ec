"""Evaluators by kind: what each measures is in its module."""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from facescale.evaluate.figures import Result
from facescale.evaluate.protocols.open import KINDS, open_protocol

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed, Extraction


class Evaluator(Protocol):
    """Something that a network can be measured on."""

    @property
    def name(self) -> str:
        """What its results are called."""
        ...

    def measure(self, embed: "Embed", extraction: "Extraction | None" = None) -> Result:
        """All that ``embed`` achieves."""
        ...

    def run(self, embed: "Embed") -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every scalar that ``embed`` achieves."""
        ...


# Openers: (path, size, flip, batch_size, name=) -> Evaluator.
EVALS: dict[str, Callable[..., Evaluator]] = {**KINDS}

__all__ = ["EVALS", "Evaluator", "identification", "ijb", "metrics", "open_protocol"]
