"""Write the results of an evaluation as one self-contained HTML page, and as results.json."""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import numpy as np

from facescale.arrays import Pixels
from facescale.data.loading.decode import decode, encode_jpeg, resized
from facescale.evaluate.figures import Figures, Result, shown_value
from facescale.evaluate.metrics import MIN_FALSE_ACCEPTS, OperatingPoint
from facescale.evaluate.report.charts import Row, roc_chart, score_chart, training_charts
from facescale.evaluate.report.markup import Child, Element, document, el
from facescale.evaluate.verification import VerificationResult
from facescale.files import replacing

NUM_HARDEST = 8  # pairs of each kind that are shown
THUMBNAIL = 112  # pixels

Section = tuple[str, list[Element]]


def write_report(
    path: str | Path,
    results: Sequence[Result],
    history: Sequence[Row] = (),
    title: str = "Evaluation",
    info: Mapping[str, Mapping[str, Any]] | None = None,
    pictures: bool = True,
) -> None:
    """Write ``path`` (HTML) and, if there are results, ``results.json`` beside it.

    Args:
        path: the page.
        results: one per protocol.
        history: lines of metrics.jsonl, for the training curves and warnings.
        title: heading of the page, such as the name of the run.
        info: run information by heading: config, plan, versions.
        pictures: show the hardest pairs; leave them out where faces must not be passed on.

    Raises:
        ValueError: there is nothing to report.
    """
    if not results and not history:
        raise ValueError(
            "there is nothing to report: no protocol was evaluated and no training was logged; "
            "name a protocol with --on NAME=PATH"
        )
    path, info, notes = Path(path), info or {}, _health(history)
    if results:
        figures = {
            "title": title,
            "results": [result.to_dict() for result in results],
            "notes": notes,
            "info": info,
        }
        with replacing(path.with_name("results.json")) as file:
            file.write_text(json.dumps(figures, indent=1, default=str), encoding="utf-8")
    pairs = [result for result in results if isinstance(result, VerificationResult)]
    others = [result for result in results if isinstance(result, Figures)]
    sections = [
        ("Summary", _summary(pairs, notes)),
        ("Curves", _curves(pairs)),
        *[(result.name, _protocol(result, pictures)) for result in pairs],
        *[(result.name, _figures(result)) for result in others],
        ("Training", _grid(training_charts(history, [result.name for result in results]))),
        ("Run", _run(info)),
    ]
    page = _page(title, [section for section in sections if section[1]])
    with replacing(path) as file:
        file.write_text(document(page), encoding="utf-8")


def _page(title: str, sections: Sequence[Section]) -> Element:
    style = resources.files("facescale.evaluate.report").joinpath("report.css").read_text(encoding="utf-8")
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{title} - facescale report"),
        el("style", style),
    )
    themes = [
        el("label", el("input", type="radio", name="theme", id=f"theme-{name}", checked=name == "auto"), name)
        for name in ("auto", "light", "dark")
    ]
    links = [el("a", name, href=f"#section-{i}") for i, (name, _) in enumerate(sections)]
    header = el(
        "header",
        el("p", "facescale report", class_="brand"),
        el("fieldset", el("legend", "Theme"), themes, class_="themes"),
        el("h1", title),
        el("nav", links, aria_label="Sections"),
    )
    main = [
        el("section", el("h2", name), content, id=f"section-{i}")
        for i, (name, content) in enumerate(sections)
    ]
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    footer = el("footer", f"Written {written} by facescale {metadata.version('facescale')}.")
    return el("html", head, el("body", header, el("main", main), footer), lang="en")


def _summary(results: Sequence[VerificationResult], notes: Sequence[str]) -> list[Element]:
    parts = []
    if notes:
        parts.append(el("ul", [el("li", note) for note in notes], class_="notes", aria_label="Notes"))
    if results:
        parts += [
            el("div", _tiles(results), class_="tiles"),
            _comparison(results),
            _caption(
                "Accuracy: each fold is scored at the threshold that is best on the other folds; mean \u00b1 "
                "standard deviation over folds. EER: equal error rate. TAR @ FAR: fraction of genuine pairs "
                "accepted at a false-accept rate; \u2013 where the set has too few impostor pairs."
            ),
        ]
    return parts


def _tiles(results: Sequence[VerificationResult]) -> list[Element]:
    """The headline figures: accuracy of each protocol; for a single protocol, two more."""
    tiles = [(result.name, _percent(result.accuracy.mean), _folds_about(result)) for result in results]
    if len(results) == 1:
        tiles.append(("EER", _percent(results[0].curve.eer), "false accepts = false rejects"))
        for point in [point for point in results[0].points if point.supported][-1:]:
            about = f"95 % interval {100 * point.tar_low:.2f} to {100 * point.tar_high:.2f}"
            tiles.append((f"TAR @ FAR {point.far:g}", _percent(point.tar), about))
    return [
        el(
            "div",
            el("p", name, class_="tile-name"),
            el("p", value, class_="tile-value"),
            el("p", about),
            class_="tile",
        )
        for name, value, about in tiles
    ]


def _folds_about(result: VerificationResult) -> str:
    return f"accuracy, \u00b1 {100 * result.deviation:.2f} over {len(result.accuracy.folds)} folds"


def _comparison(results: Sequence[VerificationResult]) -> Element:
    """One row for each protocol."""
    fars = sorted(
        {point.far for result in results for point in result.points if point.supported}, reverse=True
    )
    rows = []
    for result in results:
        points = {point.far: point for point in result.points if point.supported}
        rows.append(
            [
                result.name,
                f"{result.curve.num_genuine:,}",
                f"{result.curve.num_impostor:,}",
                f"{_percent(result.accuracy.mean)} \u00b1 {100 * result.deviation:.2f}",
                f"{result.curve.auc:.4f}",
                _percent(result.curve.eer),
                *[_percent(points[far].tar) if far in points else "\u2013" for far in fars],
            ]
        )
    head = [
        "Protocol",
        "Genuine",
        "Impostor",
        "Accuracy",
        "AUC",
        "EER",
        *[f"TAR @ FAR {far:g}" for far in fars],
    ]
    return _table("Figures of each protocol", rows, head)


def _curves(results: Sequence[VerificationResult]) -> list[Element]:
    if not results:
        return []
    about = (
        f"The ROC is dashed where it rests on fewer than {MIN_FALSE_ACCEPTS} impostor pairs. "
        "The marks in a distribution are thresholds."
    )
    return [*_grid([roc_chart(results), *map(score_chart, results)]), _caption(about)]


def _protocol(result: VerificationResult, pictures: bool) -> list[Element]:
    folds = " ".join(f"{100 * fold:.2f}" for fold in result.accuracy.folds)
    facts = {
        "Source": result.pairs.source,
        "Images": f"{result.num_images:,}",
        "Mirrored view added": "yes" if result.flip else "no",
        "Mean embedding norm": f"{result.mean_norm:.4g}",
        "Accuracy of the folds in %": folds,
        "VAL at FAR 0.001, insightface's rule": _percent(result.accuracy.val or 0.0),
    }
    points = [_point_cells(point) for point in result.points if point.supported]
    parts = []
    if points:
        parts = [
            _table("Operating points", points, ["FAR", "Threshold", "Interval", "TAR", "Interval"]),
            _caption("Thresholds are cosines. Intervals are 95 % bootstrap intervals over pairs."),
        ]
    parts += [*map(_caption, result.notes()), _table("Facts", list(facts.items()), class_="facts")]
    if pictures:
        ranked = np.argsort(result.scores, kind="stable")
        is_same = result.pairs.is_same[ranked]
        for heading, about, hardest in (
            ("Hardest genuine pairs", "Same person, lowest scores.", ranked[is_same]),
            ("Hardest impostor pairs", "Different people, highest scores.", ranked[~is_same][::-1]),
        ):
            shown = [_pair(result, int(pair)) for pair in hardest[:NUM_HARDEST]]
            parts += [el("h3", heading), _caption(about), el("div", shown, class_="pairs")]
    return parts


def _figures(result: Figures) -> list[Element]:
    """Figures of a protocol that is more than pairs."""
    rows = [[key, shown_value(key, value)] for key, value in result.values.items()]
    facts = [("Source", result.source), *[(key, f"{count:,}") for key, count in result.counts.items()]]
    return [
        _table("Figures", rows, ["Figure", "Value"]),
        *map(_caption, result.notes()),
        _table("Facts", facts, class_="facts"),
    ]


def _point_cells(point: OperatingPoint) -> list[str]:
    return [
        f"{point.far:g}",
        f"{point.threshold:.3f}",
        f"{point.threshold_low:.3f} to {point.threshold_high:.3f}",
        _percent(point.tar),
        f"{_percent(point.tar_low)} to {_percent(point.tar_high)}",
    ]


def _pair(result: VerificationResult, pair: int) -> Element:
    pictures, names = [], []
    for index in (int(result.pairs.a[pair]), int(result.pairs.b[pair])):
        key = result.pairs.images.key(index)
        image = _thumbnail(result.pairs.images[index])
        pictures.append(el("img", src=image, alt=key, title=key, width=THUMBNAIL, height=THUMBNAIL))
        names.append(el("span", key.rsplit("/", 1)[-1], title=key))
    caption = el("figcaption", el("b", f"{result.scores[pair]:.3f}"), names)
    return el("figure", pictures, caption, class_="pair")


def _thumbnail(image: bytes | Pixels) -> str:
    """A small JPEG of an image as data URI."""
    pixels = decode(image)
    height, width = pixels.shape[:2]
    scale = THUMBNAIL / max(height, width)
    if scale < 1:
        pixels = resized(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(pixels, 85)).decode("ascii")


def _health(history: Sequence[Row]) -> list[str]:
    """Warnings of the training, each once, and the number of skipped steps."""
    messages = list(dict.fromkeys(str(row["message"]) for row in history if row.get("kind") == "health"))
    if num_bad := sum(row.get("kind") == "bad_step" for row in history):
        messages.append(f"{num_bad} training steps were not finite and were skipped")
    return messages


def _run(info: Mapping[str, Mapping[str, Any]]) -> list[Element]:
    return [
        el("details", el("summary", heading), _table(heading, list(_flat(values)), class_="facts"))
        for heading, values in info.items()
    ]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _table(
    label: str, rows: Sequence[Sequence[str]], head: Sequence[str] = (), class_: str | None = None
) -> Element:
    """A table that scrolls by itself where the screen is narrow; the first cell of a row is its header."""
    body = [el("tr", el("th", row[0], scope="row"), [el("td", cell) for cell in row[1:]]) for row in rows]
    columns: Child = [el("thead", el("tr", [el("th", cell, scope="col") for cell in head]))] if head else []
    table = el("table", columns, el("tbody", body), class_=class_)
    return el("div", table, class_="scroll", role="region", aria_label=label, tabindex=0)


def _grid(charts: Sequence[Element]) -> list[Element]:
    return [el("div", charts, class_="charts")] if charts else []


def _caption(text: str) -> Element:
    return el("p", text, class_="caption")


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"
