"""The charts of a report: ROC, score distributions, training curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facescale.arrays import FloatArray
from facescale.evaluate.metrics import MIN_FALSE_ACCEPTS
from facescale.evaluate.records import Record
from facescale.evaluate.report.markup import Element
from facescale.evaluate.report.summary import by_rate
from facescale.evaluate.report.svg import Line, Mark, chart, linear_axis, log_axis, thin

NUM_SERIES = 8  # colours in report.css

Row = Mapping[str, Any]  # a line of metrics.jsonl


def roc_chart(records: Sequence[Record]) -> Element:
    """ROC of every protocol over a logarithmic FAR; dashed where it rests on too few impostor pairs."""
    curves = [record.curves["roc"] for record in records]
    lowest_far = min(1 / curve["impostor_pairs"] for curve in curves)
    x = log_axis("false-accept rate (FAR)", min(lowest_far, 0.1), 1)
    lines = []
    for number, (record, curve) in enumerate(zip(records, curves, strict=True)):
        far, tar = np.array(curve["far"]), np.array(curve["tar"])
        solid_from = MIN_FALSE_ACCEPTS / curve["impostor_pairs"]
        lines.append(Line(record.name, far, tar, series(number), solid_from=solid_from))
    y = linear_axis("true-accept rate (TAR)", np.concatenate([line.y for line in lines]))
    return chart("ROC", lines, x, y)


def score_chart(record: Record) -> Element:
    """Distributions of the genuine and the impostor scores, with the thresholds."""
    edges = np.array(record.curves["scores"]["edges"])
    lines = []
    for label in ("genuine", "impostor"):
        percent = np.array(record.curves["scores"][label])
        steps = np.concatenate([[0], np.repeat(percent, 2), [0]])
        lines.append(Line(label, np.repeat(edges, 2), steps, label, is_area=True))
    thresholds = by_rate(record.figures, "threshold@far=")
    marks = [Mark(thresholds[far], f"FAR {far:g}") for far in sorted(thresholds, reverse=True)]
    y = linear_axis("share of pairs", np.concatenate([line.y for line in lines]), unit=" %")
    return chart(f"Scores: {record.name}", lines, linear_axis("cosine of the pair", edges), y, marks)


def training_charts(history: Sequence[Row], names: Sequence[str]) -> list[Element]:
    """The figures of metrics.jsonl over steps; the protocols ``names`` have the colours of their ROC."""
    charts = []
    for key, title, unit in (
        ("loss", "Loss", "loss"),
        ("lr", "Learning rate", "learning rate"),
        ("images_per_s", "Throughput", "images/s"),
        ("target_cosine", "Cosine to the class centre", "cosine"),
    ):
        step, value = _column(history, "train", key)
        if len(step):
            charts.append(_over_steps(title, unit, [Line(title, *thin(step, value), series(0))]))
    evals = [row for row in history if row.get("kind") == "eval"]
    measured = [key.removesuffix("/accuracy") for row in evals for key in row if key.endswith("/accuracy")]
    lines = []
    for number, name in enumerate(dict.fromkeys([*names, *measured])):
        step, value = _column(history, "eval", f"{name}/accuracy")
        if len(step):
            lines.append(Line(name, step, 100 * value, series(number)))
    if lines:
        charts.insert(1, _over_steps("Accuracy during training", "accuracy in %", lines))
    return charts


def series(number: int) -> str:
    """Class that colours line ``number``."""
    return f"series-{number % NUM_SERIES}"


def _over_steps(title: str, unit: str, lines: Sequence[Line]) -> Element:
    steps, values = (
        np.concatenate(column) for column in zip(*[(line.x, line.y) for line in lines], strict=True)
    )
    return chart(title, lines, linear_axis("step", np.append(0, steps)), linear_axis(unit, values))


def _column(history: Sequence[Row], kind: str, key: str) -> tuple[FloatArray, FloatArray]:
    """Steps and values of ``key`` in the lines of one kind, as far as they are finite numbers."""
    rows = [(row["step"], row[key]) for row in history if row.get("kind") == kind and key in row]
    finite = [row for row in rows if isinstance(row[1], int | float) and math.isfinite(row[1])]
    steps_and_values = np.array(finite, dtype=np.float64).reshape(-1, 2)
    return steps_and_values[:, 0], steps_and_values[:, 1]
