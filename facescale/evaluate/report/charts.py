"""The charts of a report: ROC, score distributions, training curves."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facescale.arrays import FloatArray
from facescale.evaluate.metrics import MIN_FALSE_ACCEPTS
from facescale.evaluate.records import Record
from facescale.evaluate.report.markup import Element
from facescale.evaluate.report.shapes import series
from facescale.evaluate.report.summary import by_rate
from facescale.evaluate.report.svg import Line, Mark, chart, linear_axis, log_axis, thin

Row = Mapping[str, Any]  # a line of metrics.jsonl


def roc_chart(records: Sequence[Record], title: str = "ROC") -> Element:
    """ROC of every protocol over a logarithmic FAR; faint where it rests on too few impostor pairs."""
    curves = [record.curves["roc"] for record in records]
    lowest_far = min(1 / curve["impostor_pairs"] for curve in curves)
    x = log_axis("false-accept rate (FAR)", min(lowest_far, 0.1), 1)
    lines = []
    for number, (record, curve) in enumerate(zip(records, curves, strict=True)):
        far, tar = np.array(curve["far"]), np.array(curve["tar"])
        solid_from = MIN_FALSE_ACCEPTS / curve["impostor_pairs"]
        lines.append(Line(record.name, far, tar, series(number), solid_from=solid_from))
    y = linear_axis("true-accept rate (TAR)", np.concatenate([line.y for line in lines]))
    return chart(title, lines, x, y)


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


def det_chart(records: Sequence[Record], title: str = "DET") -> Element:
    """DET: false rejects over false accepts, both logarithmic."""
    lines, lowest = [], 0.1
    for number, record in enumerate(records):
        curve = record.curves["roc"]
        far, fnmr = np.array(curve["far"]), 1 - np.array(curve["tar"])
        shown = fnmr > 0.5 / curve["genuine_pairs"]
        if shown.any():
            solid_from = MIN_FALSE_ACCEPTS / curve["impostor_pairs"]
            lines.append(Line(record.name, far[shown], fnmr[shown], series(number), solid_from=solid_from))
            lowest = min(lowest, float(fnmr[shown].min()))
    far_low = min(1 / record.curves["roc"]["impostor_pairs"] for record in records)
    x = log_axis("false-match rate (FMR)", min(far_low, 0.1), 1)
    return chart(title, lines, x, log_axis("false-non-match rate (FNMR)", lowest, 1))


def rates_chart(record: Record) -> Element:
    """FMR and FNMR over the threshold."""
    rates = record.curves["rates"]
    threshold = np.array(rates["threshold"])
    lines = [
        Line("FNMR: genuine pairs rejected", threshold, 100 * np.array(rates["fnmr"]), "genuine"),
        Line("FMR: impostor pairs accepted", threshold, 100 * np.array(rates["fmr"]), "impostor"),
    ]
    y = linear_axis("share of pairs", np.array([0, 100]), unit=" %")
    return chart(f"Errors over the threshold: {record.name}", lines, linear_axis("threshold", threshold), y)


def cmc_chart(records: Sequence[Record]) -> Element:
    """CMC: share of mated probes whose mate is among the first k."""
    lines = [
        Line(
            one.name,
            np.array(one.curves["cmc"]["rank"]),
            100 * np.array(one.curves["cmc"]["rate"]),
            series(n),
        )
        for n, one in enumerate(records)
    ]
    y = linear_axis("found in %", np.concatenate([line.y for line in lines]))
    return chart("CMC", lines, linear_axis("rank", np.concatenate([line.x for line in lines])), y)


def erc_chart(records: Sequence[Record]) -> Element:
    """ERC: false rejects over the share of genuine pairs that are discarded for low quality."""
    lines = [
        Line(
            one.name,
            100 * np.array(one.curves["erc"]["discarded"]),
            100 * np.array(one.curves["erc"]["fnmr"]),
            series(n),
        )
        for n, one in enumerate(records)
    ]
    y = linear_axis("FNMR of the rest in %", np.append(0, np.concatenate([line.y for line in lines])))
    x = linear_axis("genuine pairs discarded in %", np.array([0, 95]))
    return chart("Error versus discard", lines, x, y)


def training_charts(history: Sequence[Row], names: Sequence[str]) -> list[Element]:
    """The figures of metrics.jsonl over steps; the protocols ``names`` have the colours of their ROC."""
    charts = []
    for key, title, unit in (
        ("loss", "Loss", "loss"),
        ("lr", "Learning rate", "learning rate"),
        ("images_per_s", "Throughput", "images/s"),
        ("target_cosine", "Cosine to the class centre", "cosine"),
    ):
        step, value = column(history, "train", key)
        if len(step):
            charts.append(over_steps(title, unit, [Line(title, *thin(step, value), series(0))]))
    evals = [row for row in history if row.get("kind") == "eval"]
    measured = [key.removesuffix("/accuracy") for row in evals for key in row if key.endswith("/accuracy")]
    lines = []
    for number, name in enumerate(dict.fromkeys([*names, *measured])):
        step, value = column(history, "eval", f"{name}/accuracy")
        if len(step):
            lines.append(Line(name, step, 100 * value, series(number)))
    if lines:
        charts.insert(1, over_steps("Accuracy during training", "accuracy in %", lines))
    return charts


def over_steps(title: str, unit: str, lines: Sequence[Line]) -> Element:
    """Lines over the steps of a training."""
    steps, values = (
        np.concatenate(column) for column in zip(*[(line.x, line.y) for line in lines], strict=True)
    )
    return chart(title, lines, linear_axis("step", np.append(0, steps)), linear_axis(unit, values))


def column(history: Sequence[Row], kind: str, key: str) -> tuple[FloatArray, FloatArray]:
    """Steps and values of ``key`` in the lines of one kind, as far as they are finite numbers."""
    rows = [(row["step"], row[key]) for row in history if row.get("kind") == kind and key in row]
    finite = [row for row in rows if isinstance(row[1], int | float) and math.isfinite(row[1])]
    steps_and_values = np.array(finite, dtype=np.float64).reshape(-1, 2)
    return steps_and_values[:, 0], steps_and_values[:, 1]
