"""Result of a protocol that is more than pairs: named figures, and what they were counted over."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from facescale.evaluate.intervals import METHOD
from facescale.evaluate.scored import Scored


class Result(Protocol):
    """What an evaluator found out."""

    @property
    def name(self) -> str:
        """Of the protocol."""
        ...

    def figures(self) -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every scalar."""
        ...

    def summary(self) -> str:
        """One line for people."""
        ...

    def notes(self) -> list[str]:
        """A sentence for each thing that makes a figure less than it seems, or leaves it out."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; ``name`` and ``kind`` are among them."""
        ...

    def curves(self) -> dict[str, Any]:
        """What a page can draw, by kind of curve."""
        ...

    @property
    def scored(self) -> Scored | None:
        """What was scored, for analyses; None where the protocol keeps no scores."""
        ...

    @property
    def analyses(self) -> Mapping[str, Any]:
        """Facts that analyses found, by analysis."""
        ...

    @property
    def drawn(self) -> Mapping[str, Any]:
        """Curves, by kind."""
        ...

    def hardest(self, pictures: bool) -> dict[str, list[dict[str, Any]]]:
        """The pairs with the most extreme scores, by kind, where the protocol has pairs of images."""
        ...


@dataclass(frozen=True)
class Figures:
    """Figures of an identification or template protocol.

    Attributes:
        name: of the protocol.
        kind: which evaluator made it.
        source: where the data came from.
        values: scalars by name; shares lie from 0 to 1.
        counts: how many images, people, templates or pairs.
        remarks: what was left out, and why.
        drawn: curves for the page.
        intervals: low and high end by the name of a figure.
        rule: options that change what is measured, as text; empty where there are none.
        scored: what was scored, for analyses; None where the protocol keeps no scores.
        analyses: by name (groups, erc, transfer), plain values for JSON; see `facescale.evaluate.analyses`.
    """

    name: str
    kind: str
    source: str
    values: Mapping[str, float]
    counts: Mapping[str, int]
    remarks: tuple[str, ...] = field(default=())
    drawn: Mapping[str, Any] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    rule: str = ""
    scored: Scored | None = field(default=None, repr=False)
    analyses: Mapping[str, Any] = field(default_factory=dict)

    def figures(self) -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every scalar."""
        yield from self.values.items()

    def summary(self) -> str:
        """One line: the shares in percent."""
        shown = [f"{key} {shown_value(key, value)}" for key, value in self.values.items()]
        return f"{self.name}: {', '.join(shown)}"

    def notes(self) -> list[str]:
        """The remarks, each with the name of the protocol."""
        return [f"{self.name}: {remark}" for remark in (*self.remarks, *analysis_notes(self.analyses))]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "kind": self.kind,
            "name": self.name,
            "source": self.source,
            **({"rule": self.rule} if self.rule else {}),
            "counts": dict(self.counts),
            "figures": dict(self.values),
            "notes": self.notes(),
            **interval_facts(self.intervals),
            **self.analyses,
        }

    def curves(self) -> dict[str, Any]:
        """What a page can draw, by kind of curve."""
        return dict(self.drawn)

    def hardest(self, pictures: bool) -> dict[str, list[dict[str, Any]]]:
        """Nothing: these figures are not about single pairs of images."""
        return {}


def interval_facts(intervals: Mapping[str, tuple[float, float]]) -> dict[str, Any]:
    """Intervals with the name of their method, for JSON."""
    return {"intervals": dict(intervals), "interval_method": METHOD} if intervals else {}


def analysis_notes(analyses: Mapping[str, Any]) -> list[str]:
    """What analyses left out."""
    return [note for found in analyses.values() for note in found.get("notes", ())]


def shown_value(key: str, value: float) -> str:
    """A figure as people read it: cosines, lengths and AUC as numbers, all else in per cent."""
    if key.startswith(("threshold", "mean_norm")):
        return f"{value:.3f}"
    return f"{value:.4f}" if key == "auc" else f"{value:.2%}"
