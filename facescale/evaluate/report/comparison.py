"""One page that compares several runs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from facescale.evaluate.compare import Comparison
from facescale.evaluate.report.charts import column, det_chart, over_steps, roc_chart
from facescale.evaluate.report.markup import Element, document, el
from facescale.evaluate.report.page import Section, grid, page_of
from facescale.evaluate.report.shapes import series
from facescale.evaluate.report.svg import Line, thin
from facescale.evaluate.report.tables import caption, table
from facescale.files import replacing

_DIFFERENCE = (
    "Difference on the same pairs, second run less first; 95 % interval and two-sided p by a bootstrap over "
    "people (2,000 resamples for accuracy, 1,000 for TAR, each with thresholds of its own); of all_pairs: "
    "and ijb: by what each person adds to TAR (infinitesimal jackknife)."
)


def write_comparison(path: Path, found: Comparison) -> None:
    """Write a comparison as one self-contained HTML page."""
    notes = [el("ul", [el("li", note) for note in found.notes], class_="notes")] if found.notes else []
    sections: list[Section] = [
        ("Figures", [*notes, *_table("Figures of the best checkpoints", found.figure_rows())]),
        ("Differences", _explained("Accuracy and TAR of two runs", found.difference_rows(), _DIFFERENCE)),
        ("Settings", _table("Settings that differ", found.setting_rows())),
        ("Curves", grid(_curves(found))),
        ("Training", grid(_training(found))),
    ]
    page = page_of(" / ".join(found.names), [section for section in sections if section[1]])
    with replacing(path) as file:
        file.write_text(document(page), encoding="utf-8")


def _table(label: str, rows: Sequence[Mapping[str, str]]) -> list[Element]:
    """Protocol and figure share a cell, so that a narrow screen shows values beside them."""
    if not rows:
        return []
    named = [(f"{row['protocol']}: {row['figure']}", row) if "protocol" in row else ("", row) for row in rows]
    left_out = ("protocol", "figure") if "protocol" in rows[0] else ()
    columns = [key for key in rows[0] if key not in left_out]
    cells = [[*([name] if name else []), *[row[key] for key in columns]] for name, row in named]
    return [table(label, cells, [*(["figure"] if left_out else []), *columns])]


def _explained(label: str, rows: Sequence[Mapping[str, str]], about: str) -> list[Element]:
    return [*_table(label, rows), caption(about)] if rows else []


def _curves(found: Comparison) -> list[Element]:
    """ROC and DET of every protocol, one line for each run."""
    protocols = dict.fromkeys(
        r.name for name in found.names for r in found.records[name] if "roc" in r.curves
    )
    charts = []
    for protocol in protocols:
        lines = [
            replace(record, result={**record.result, "name": name})
            for name in found.names
            for record in found.records[name]
            if record.name == protocol and "roc" in record.curves
        ]
        charts += [roc_chart(lines, f"ROC: {protocol}"), det_chart(lines, f"DET: {protocol}")]
    return charts


def _training(found: Comparison) -> list[Element]:
    """The loss, and the accuracy of every protocol, one line for each run."""
    keys = dict.fromkeys(
        key
        for name in found.names
        for row in found.history[name]
        for key in row
        if row.get("kind") == "eval" and key.endswith("/accuracy")
    )
    charts = []
    for kind, key, title in (("train", "loss", "Loss"), *[("eval", k, k) for k in keys]):
        lines = []
        for number, name in enumerate(found.names):
            step, value = column(found.history[name], kind, key)
            if len(step):
                lines.append(Line(name, *thin(step, np.asarray(value)), series(number)))
        if lines:
            charts.append(over_steps(title, key.rpartition("/")[2], lines))
    return charts
