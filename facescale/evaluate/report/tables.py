"""Tables and small text blocks of a report page."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from facescale.evaluate.report.markup import Child, Element, el

Cell = str | Element


def table(
    label: str, rows: Sequence[Sequence[Cell]], head: Sequence[str] = (), class_: str | None = None
) -> Element:
    """A table that scrolls by itself where the screen is narrow; the first cell of a row is its header.

    A cell is its text, or the element ``td`` itself.
    """
    body = [
        el(
            "tr",
            el("th", row[0], scope="row"),
            [el("td", cell) if isinstance(cell, str) else cell for cell in row[1:]],
        )
        for row in rows
    ]
    columns: Child = [el("thead", el("tr", [el("th", cell, scope="col") for cell in head]))] if head else []
    inner = el("table", el("caption", label), columns, el("tbody", body), class_=class_)
    scroll = el("div", inner, class_="scroll", role="region", aria_label=label, tabindex=0)
    return el("div", scroll, class_="table")


def caption(text: str) -> Element:
    """A paragraph that explains what is beside it."""
    return el("p", text, class_="caption")


def percent(share: float | None) -> str:
    """A share from 0 to 1 in percent; a dash where there is none."""
    return "\u2013" if share is None else f"{100 * share:.2f} %"


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted key, text) of every value of a nested mapping."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
