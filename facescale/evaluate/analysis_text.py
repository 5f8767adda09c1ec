"""Analyses of a result as lines for people."""

from collections.abc import Iterator, Mapping
from typing import Any

from facescale.evaluate.figures import Result


def analysis_lines(result: Result) -> list[str]:
    """A few lines on the groups of a result, and on thresholds of other sets; none where there are none."""
    found = result.analyses
    groups = list(_of_groups(result.name, found["groups"])) if "groups" in found else []
    return groups + [_of_transfer(result.name, row) for row in found.get("transfer", {}).get("rows", ())]


def rates_of(groups: Mapping[str, Any]) -> tuple[tuple[str, str], tuple[str, str]]:
    """(Key, name) of the false accepts and of the false rejects of a grouping."""
    if "fpir" in groups:
        return ("fpir", "FPIR"), ("fnir", "FNIR")
    return ("fmr", "FMR"), ("fnmr", "FNMR")


def chosen_for(groups: Mapping[str, Any]) -> str:
    """The rate over all that the threshold of a grouping was chosen for."""
    return f"{'FPIR' if 'fpir' in groups else 'FAR'} {groups['far']:g} over all"


def small(share: float) -> str:
    """A share in percent with three digits that count, however small it is."""
    return f"{100 * share:.3g} %"


def _of_groups(name: str, groups: Mapping[str, Any]) -> Iterator[str]:
    keys = rates_of(groups)
    at = f"threshold {groups['threshold']:.3f} ({chosen_for(groups)})"
    yield f"{name} by {groups['column']} at {at}:"
    for group in groups["images"]:
        shares = []
        for key, word in keys:
            cell = next(one for one in groups[key] if one["first"] == one["second"] == group)
            shares.append(f"{word} {cell['reason'] if cell['rate'] is None else small(cell['rate'])}")
        yield f"  {group}: {', '.join(shares)}"
    ratios = [(word, *ratio_of(groups, key)) for key, word in keys]
    shown = [f"{word} {value}{f' ({ends})' if ends else ''}" for word, value, ends in ratios]
    yield f"  Max/GeoMean: {', '.join(shown)}"


def ratio_of(groups: Mapping[str, Any], key: str, none: str = "none") -> tuple[str, str]:
    """Max/GeoMean of a rate and its interval, as text."""
    value, ends = groups[f"max_over_geomean_{key}"], groups.get(f"max_over_geomean_{key}_interval")
    shown = none if value is None else f"{value:.2f}"
    return shown, f"{ends[0]:.2f} to {ends[1]:.2f}" if ends else ""


def _of_transfer(name: str, row: Mapping[str, Any]) -> str:
    fmr = "more than is kept" if row["fmr"] is None else small(row["fmr"])
    return (
        f"{name} at the threshold of {row['chosen_on']} for FAR {row['far']:g} ({row['threshold']:.3f}): "
        f"FMR {fmr}, FNMR {small(row['fnmr'])}"
    )
