"""Analyses on a page: errors by group with a heat map, error versus discard, thresholds of other sets."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from facescale.evaluate.analysis_text import chosen_for, rates_of, ratio_of, small
from facescale.evaluate.report.markup import Element, el
from facescale.evaluate.report.tables import Cell, caption, percent, table

_OF_GROUP = {
    "fmr": "Both images of a pair are of the group.",
    "fpir": "The probe is of the group.",
}
_NONE = "\u2013"
_FAINT, _STRONG = 6, 60  # percent of the colour in a cell of the heat map
_FEWEST, _MOST = 0.5, 3.0  # decades between the faintest and the strongest


def analysis_parts(result: Mapping[str, Any]) -> list[Element]:
    """Everything that analyses found of a protocol."""
    parts = []
    if groups := result.get("groups"):
        parts += _groups(groups)
    if erc := result.get("erc"):
        parts += _discard(erc)
    if transfer := result.get("transfer"):
        parts += _transfer(transfer["rows"])
    return parts


def _groups(groups: Mapping[str, Any]) -> list[Element]:
    """A row for each group, the ratio that sums them up, and FMR of every two groups."""
    keys = rates_of(groups)
    (accept, accept_word), (_, reject_word) = keys
    rows = []
    for name, images in groups["images"].items():
        cells = [_of_group(groups[key], name) for key, _ in keys]
        shown = [text for cell in cells for text in (_rate(cell), _between(cell["low"], cell["high"]))]
        rows.append([name, f"{images:,}", *shown])
    rows.append(["Max / GeoMean", "", *[text for key, _ in keys for text in ratio_of(groups, key, _NONE)]])
    head = [groups["column"], "Images", accept_word, "Interval", reject_word, "Interval"]
    about = (
        f"One threshold for all: {groups['threshold']:.3f} ({chosen_for(groups)}). {_OF_GROUP[accept]} "
        "Max/GeoMean: the largest rate divided by the geometric mean of "
        "all (NIST FRVT part 8); 1 means no difference, and an interval from 1 that there may be none."
    )
    reasons = [
        f"{cell['first']}: no {word}, {cell['reason']}"
        for key, word in keys
        for cell in groups[key]
        if cell["reason"] and cell["first"] == cell["second"]
    ]
    parts = [table(f"Errors by {groups['column']}", rows, head), caption(about)]
    if reasons:
        parts.append(el("ul", [el("li", reason) for reason in reasons], class_="caption"))
    if accept == "fmr":
        parts += _heat_map(groups["fmr"], list(groups["images"]), groups["column"])
    return parts


def _heat_map(cells: Sequence[Mapping[str, Any]], names: Sequence[str], column: str) -> list[Element]:
    """FMR of the pairs of every two groups; the colour follows its logarithm, the number is in the cell."""
    by_pair = {frozenset((cell["first"], cell["second"])): cell for cell in cells}
    known = [cell["rate"] for cell in cells if cell["rate"]]
    highest, lowest = max(known, default=1.0), min(known, default=1.0)
    decades = min(max(math.log10(highest / lowest), _FEWEST), _MOST)
    rows: list[list[Cell]] = [
        [a, *[_heat_cell(by_pair[frozenset((a, b))], highest, decades) for b in names]] for a in names
    ]
    label = f"FMR of every two groups by {column}"
    about = (
        "Heat map: impostor pairs of an image of one group and one of the other that are accepted. The "
        f"colour is strongest at {small(highest)} and faintest at {small(highest / 10**decades)}; "
        f"{_NONE}: too few pairs."
    )
    return [table(label, rows, ["", *names], class_="heat"), caption(about)]


def _heat_cell(cell: Mapping[str, Any], highest: float, decades: float) -> Element:
    if cell["rate"] is None:
        return el("td", _NONE, title=cell["reason"], class_="none")
    share = 0.0
    if cell["rate"]:
        share = max(0.0, 1 + math.log10(cell["rate"] / highest) / decades)
    heat = round(_FAINT + share * (_STRONG - _FAINT)) if cell["rate"] else 0
    interval = _between(cell["low"], cell["high"])
    about = f"{cell['first']} and {cell['second']}: {cell['count']:,} pairs, {interval}"
    return el("td", small(cell["rate"]), title=about, style=f"--heat: {heat}")


def _discard(erc: Mapping[str, Any]) -> list[Element]:
    saved = 1 - erc["partial_auc"] / erc["fnmr"]
    rows = [
        [
            erc["quality"],
            f"{erc['genuine_pairs']:,}",
            percent(erc["fnmr"]),
            percent(erc["partial_auc"]),
            percent(erc["partial_auc_best"]),
            f"{saved:+.1%}",
        ]
    ]
    up_to = f"{erc['partial_auc_up_to']:.0%}"
    about = (
        f"Genuine pairs at the threshold of FAR {erc['far']:g} ({erc['threshold']:.3f}). Partial area: mean "
        f"FNMR while the 0 to {up_to} of pairs with the lowest quality are discarded; best: if those that "
        "fail were discarded first. Saved: by how much the partial area is below the FNMR of all pairs."
    )
    head = ["Quality", "Pairs", "FNMR", "Partial area", "Best", "Saved"]
    return [table("Error versus discard", rows, head), caption(about)]


def _transfer(rows: Sequence[Mapping[str, Any]]) -> list[Element]:
    shown = [
        [
            row["chosen_on"],
            f"{row['far']:g}",
            f"{row['threshold']:.3f}",
            _NONE if row["fmr"] is None else small(row["fmr"]),
            _between(row["fmr_low"], row["fmr_high"]),
            small(row["fnmr"]),
            _between(row["fnmr_low"], row["fnmr_high"]),
        ]
        for row in rows
    ]
    head = ["Chosen on", "FAR there", "Threshold", "FMR here", "Interval", "FNMR here", "Interval"]
    about = "A threshold holds what it promises where FMR here is near FAR there."
    return [table("Thresholds of other sets", shown, head), caption(about)]


def _of_group(cells: Sequence[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    return next(cell for cell in cells if cell["first"] == cell["second"] == name)


def _rate(cell: Mapping[str, Any]) -> str:
    return _NONE if cell["rate"] is None else small(cell["rate"])


def _between(low: float | None, high: float | None) -> str:
    return _NONE if low is None or high is None else f"{100 * low:.3g} to {small(high)}"
