"""The section of one protocol: operating points, figures, facts, hardest pairs."""

from collections.abc import Mapping
from typing import Any

from facescale.evaluate.figures import shown_value
from facescale.evaluate.records import Record
from facescale.evaluate.report.analyses import analysis_parts
from facescale.evaluate.report.markup import Element, el
from facescale.evaluate.report.tables import caption, percent, table

_HARDEST = {
    "genuine": ("Hardest genuine pairs", "Same person, lowest scores."),
    "impostor": ("Hardest impostor pairs", "Different people, highest scores."),
}


def protocol_section(record: Record, pictures: bool) -> list[Element]:
    """All that is known of one protocol."""
    points = [_point_cells(p) for p in record.result.get("operating_points", ()) if p["supported"]]
    parts = []
    if points:
        parts = [
            table("Operating points", points, ["FAR", "Threshold", "Interval", "TAR", "Interval"]),
            caption("Thresholds are cosines."),
        ]
    if "accuracy" not in record.result:
        rows = [
            [key, shown_value(key, value), _interval(record, key)] for key, value in record.figures.items()
        ]
        parts.append(table("Figures", rows, ["Figure", "Value", "Interval"]))
    if method := record.result.get("interval_method"):
        people = record.result.get("people")
        parts.append(caption(f"Intervals: {method}{'; ' + people if people else ''}."))
    parts += analysis_parts(record.result)
    parts += map(caption, record.result.get("notes", ()))
    parts.append(table("Facts", list(_facts(record).items()), class_="facts"))
    for kind, pairs in record.hardest.items():
        if pictures and pairs and all("pictures" in pair for pair in pairs):
            heading, about = _HARDEST[kind]
            shown = el("div", [_pair(pair) for pair in pairs], class_="pairs")
            parts += [el("h3", heading), caption(about), shown]
    return parts


def _facts(record: Record) -> dict[str, str]:
    """What was measured, on what, and with which weights."""
    result, model = record.result, record.model
    facts = {
        "Source": str(result.get("source", "")),
        "Checkpoint": model.checkpoint,
        "Step": "" if model.step is None else f"{model.step:,}",
        "Fingerprint of the weights": model.fingerprint,
        "Backbone": model.backbone,
        "Trained on": model.data or "not stated",
        "Licence": model.licence or "not stated",
        "Input": model.contract,
        "Measured": record.time,
    }
    facts |= {key: f"{count:,}" for key, count in result.get("counts", {}).items()}
    if "images" in result:
        facts["Images"] = f"{result['images']:,}"
    if "mean_norm" in result:
        facts["Mean embedding norm"] = f"{result['mean_norm']:.4g}"
    if accuracy := result.get("accuracy"):
        facts["Accuracy, interval"] = _interval(record, "accuracy")
        facts["Accuracy of the folds in %"] = " ".join(f"{100 * fold:.2f}" for fold in accuracy["folds"])
        if accuracy.get("val") is not None:
            facts["VAL at FAR 0.001, insightface's rule"] = percent(accuracy["val"])
    return {key: value for key, value in facts.items() if value}


def _interval(record: Record, key: str) -> str:
    ends = record.result.get("intervals", {}).get(key)
    return "\u2013" if ends is None else " to ".join(shown_value(key, end) for end in ends)


def _point_cells(point: Mapping[str, Any]) -> list[str]:
    def between(low: float | None, high: float | None, text: str) -> str:
        return "\u2013" if low is None or high is None else f"{low:{text}} to {high:{text}}"

    threshold = point["threshold"]
    return [
        f"{point['far']:g}",
        "\u2013" if threshold is None else f"{threshold:.3f}",
        between(point["threshold_low"], point["threshold_high"], ".3f"),
        percent(point["tar"]),
        f"{percent(point['tar_low'])} to {percent(point['tar_high'])}",
    ]


def _pair(pair: Mapping[str, Any]) -> Element:
    pictures, names = [], []
    for key, picture in zip(pair["keys"], pair["pictures"], strict=True):
        size = {"width": picture["width"], "height": picture["height"]}
        pictures.append(el("img", src=picture["uri"], alt=key, title=key, **size))
        names.append(el("span", key.rsplit("/", 1)[-1], title=key))
    label = el("figcaption", el("b", f"{pair['score']:.3f}"), names)
    return el("figure", pictures, label, class_="pair")
