"""Several runs side by side: what their configs differ in, their figures, and which differences are real."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from facescale.config import load_config
from facescale.evaluate.figures import shown_value
from facescale.evaluate.influence import influence_difference
from facescale.evaluate.records import Record, newest_of_each, read_records
from facescale.evaluate.significance import Difference, paired_difference, paired_tar_difference
from facescale.run import RunDir


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        names: of the runs, each different.
        records: by run, one for each protocol, of its best checkpoint.
        history: by run, its log.
        settings: keys of the config that differ -> value of each run.
        differences: by (protocol, figure, first run, second run): of accuracy and TAR on the same pairs.
        notes: comparisons that could not be made.
    """

    names: Sequence[str]
    records: Mapping[str, Sequence[Record]]
    history: Mapping[str, Sequence[Mapping[str, Any]]]
    settings: Mapping[str, Sequence[str]]
    differences: Mapping[tuple[str, str, str, str], Difference]
    notes: Sequence[str]

    def figure_rows(self) -> list[dict[str, str]]:
        """One row for each protocol and figure, one column for each run."""
        figures = {name: {r.name: r.figures for r in self.records[name]} for name in self.names}
        keys = dict.fromkeys(
            (protocol, key) for name in self.names for protocol, of in figures[name].items() for key in of
        )
        rows = []
        for protocol, key in keys:
            values = {name: figures[name].get(protocol, {}).get(key) for name in self.names}
            cells = {name: "\u2013" if x is None else shown_value(key, x) for name, x in values.items()}
            rows.append({"protocol": protocol, "figure": key, **cells})
        return rows

    def difference_rows(self) -> list[dict[str, str]]:
        """One row for each comparison of two runs on the same pairs."""
        return [
            {
                "protocol": protocol,
                "figure": figure,
                "difference": f"{100 * found.value:+.2f} points",
                "interval": f"{100 * found.low:+.2f} to {100 * found.high:+.2f}",
                "p": f"{found.p:.2g}",
                "verdict": "differs" if found.is_significant else "may be chance",
                "runs": f"{second} less {first}",
            }
            for (protocol, figure, first, second), found in self.differences.items()
        ]

    def setting_rows(self) -> list[dict[str, str]]:
        """One row for each key of the config that differs."""
        named = ((key, zip(self.names, values, strict=True)) for key, values in self.settings.items())
        return [{"setting": key, **dict(columns)} for key, columns in named]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "runs": list(self.names),
            "settings": {key: list(values) for key, values in self.settings.items()},
            "figures": {n: {r.name: dict(r.figures) for r in self.records[n]} for n in self.names},
            "models": {n: {r.name: asdict(r.model) for r in self.records[n]} for n in self.names},
            "differences": [
                {"protocol": key[0], "figure": key[1], "first": key[2], "second": key[3], **asdict(found)}
                for key, found in self.differences.items()
            ],
            "notes": list(self.notes),
        }


def compare(paths: Sequence[Path]) -> Comparison:
    """Read runs and compare them.

    Raises:
        ValueError: fewer than two runs, a folder that is none, or one with damaged results.
    """
    if len(paths) < 2:
        raise ValueError(f"{len(paths)} run cannot be compared; name two or more")
    runs = [RunDir.open(path) for path in paths]
    names = _names(paths)
    records = {name: _best_records(run) for name, run in zip(names, runs, strict=True)}
    configs = [_flat(load_config(run.config).model_dump(mode="json")) for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    columns = {key: [str(config.get(key, "\u2013")) for config in configs] for key in keys}
    differences, notes = _differences(names, records)
    return Comparison(
        names=names,
        records=records,
        history={name: run.read_metrics() for name, run in zip(names, runs, strict=True)},
        settings={key: values for key, values in columns.items() if len(set(values)) > 1},
        differences=differences,
        notes=notes,
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart; numbers behind those that are equal."""
    parts = [path.absolute().parts for path in paths]
    most = max(map(len, parts))
    for count in range(1, most + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def _best_records(run: RunDir) -> list[Record]:
    best = run.best()
    return newest_of_each(read_records(run.results), run.snapshot(best["step"]).name if best else None)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _differences(
    names: Sequence[str], records: Mapping[str, Sequence[Record]]
) -> tuple[dict[tuple[str, str, str, str], Difference], list[str]]:
    found: dict[tuple[str, str, str, str], Difference] = {}
    notes = []
    for first, second in combinations(names, 2):
        others = {record.name: record for record in records[second]}
        for record in records[first]:
            other = others.get(record.name)
            if other and "people" in record.curves and "people" in other.curves:
                moved, said = _of_same_people(record, other)
                found |= {(record.name, figure, first, second): value for figure, value in moved.items()}
                notes += [f"{record.name}: {first} and {second} {text}" for text in said]
                continue
            one, two = (of.curves.get("pairs") if of else None for of in (record, other))
            if not other or not one or not two:
                continue
            if any(one[key] != two[key] for key in ("same", "first", "second")):
                notes.append(f"{record.name}: {first} and {second} were measured on different pairs")
                continue
            figures = _of_same_pairs(one, two, _common_rates(record, other))
            found |= {(record.name, figure, first, second): value for figure, value in figures.items()}
            if "score" not in one or "score" not in two:
                notes.append(
                    f"{record.name}: TAR of {first} and {second} cannot be compared, because a result has no "
                    "scores; evaluate again"
                )
    return found, notes


def _common_rates(record: Record, other: Record) -> list[float]:
    """False-accept rates that both have a TAR for."""
    prefix = "tar@far="
    return [
        float(key.removeprefix(prefix))
        for key in record.figures
        if key.startswith(prefix) and key in other.figures
    ]


def _of_same_people(record: Record, other: Record) -> tuple[dict[str, Difference], list[str]]:
    """Differences by figure of a set whose pairs are too many to keep; and why there are none."""
    one, two = record.curves["people"], other.curves["people"]
    if one["digest"] != two["digest"]:
        return {}, ["were measured on different pairs"]
    return {
        name: influence_difference(
            *(record.figures[name], other.figures[name]),
            *(np.array(of["moved"][name]) for of in (one, two)),
        )
        for name in one["moved"]
        if name in two["moved"]
    }, []


def _of_same_pairs(
    one: Mapping[str, Any], other: Mapping[str, Any], fars: Sequence[float]
) -> dict[str, Difference]:
    """Differences by figure."""
    a, b = np.array(one["first"]), np.array(one["second"])
    found = {"accuracy": paired_difference(np.array(one["right"]), np.array(other["right"]), a, b)}
    if "score" in one and "score" in other:
        scores, same = tuple(np.array(of["score"]) for of in (one, other)), np.array(one["same"], bool)
        for far in fars:
            found[f"tar@far={far:g}"] = paired_tar_difference(scores[0], scores[1], same, a, b, far)
    return found
