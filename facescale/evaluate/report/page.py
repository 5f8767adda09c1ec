"""Write the results of a model as one self-contained HTML page, and as results.json."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from importlib import metadata, resources
from pathlib import Path
from typing import Any

from facescale.evaluate.metrics import MIN_FALSE_ACCEPTS
from facescale.evaluate.records import Record
from facescale.evaluate.report.charts import (
    Row,
    cmc_chart,
    det_chart,
    erc_chart,
    rates_chart,
    roc_chart,
    score_chart,
    training_charts,
)
from facescale.evaluate.report.markup import Element, document, el, raw
from facescale.evaluate.report.sections import protocol_section
from facescale.evaluate.report.summary import measurements, summary
from facescale.evaluate.report.tables import caption, flat, table
from facescale.files import replacing

Section = tuple[str, list[Element]]


def write_report(
    path: str | Path,
    records: Sequence[Record],
    history: Sequence[Row] = (),
    title: str = "Evaluation",
    info: Mapping[str, Mapping[str, Any]] | None = None,
    pictures: bool = True,
    everything: Sequence[Record] = (),
) -> None:
    """Write ``path`` (HTML) and, if there are results, ``results.json`` beside it.

    Args:
        path: the page.
        records: one per protocol, shown in full.
        history: lines of metrics.jsonl, for the training curves and warnings.
        title: heading of the page, such as the name of the run.
        info: run information by heading: config, plan, versions.
        pictures: show the hardest pairs; leave them out where faces must not be passed on.
        everything: records of all checkpoints, one row each.

    Raises:
        ValueError: there is nothing to report.
    """
    if not records and not history:
        raise ValueError(
            "there is nothing to report: no protocol was evaluated and no training was logged; "
            "name a protocol with --on NAME=PATH"
        )
    path, info, notes = Path(path), info or {}, _health(history)
    if records:
        _write_json(path.with_name("results.json"), title, records, everything or records, notes, info)
    names = [record.name for record in records]
    sections = [
        ("Summary", summary(records, notes)),
        ("Curves", _curves(records)),
        *[(record.name, protocol_section(record, pictures)) for record in records],
        ("Training", grid(training_charts(history, names))),
        ("Everything measured", measurements(everything)),
        ("Run", _run(info)),
    ]
    page = page_of(title, [section for section in sections if section[1]])
    with replacing(path) as file:
        file.write_text(document(page), encoding="utf-8")


def _write_json(
    path: Path,
    title: str,
    shown: Sequence[Record],
    everything: Sequence[Record],
    notes: Sequence[str],
    info: Mapping[str, Any],
) -> None:
    """The records without curves and pictures, those shown in full first."""
    ordered = [*shown, *[record for record in everything if record not in shown]]
    tree = {
        "title": title,
        "results": [
            {**one.result, "figures": one.figures, "model": asdict(one.model), "time": one.time}
            for one in ordered
        ],
        "notes": notes,
        "info": info,
    }
    with replacing(path) as file:
        file.write_text(json.dumps(tree, indent=1, default=str), encoding="utf-8")


def page_of(title: str, sections: Sequence[Section]) -> Element:
    """A whole page: heading, links to the sections, sections, style and script."""
    style, script = (
        resources.files("facescale.evaluate.report").joinpath(name).read_text(encoding="utf-8")
        for name in ("report.css", "report.js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
    head = el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("title", f"{title} - facescale report"),
        raw("style", style),
    )
    themes = [
        el("label", el("input", type="radio", name="theme", id=f"theme-{name}", checked=name == "auto"), name)
        for name in ("auto", "light", "dark")
    ]
    links = [el("a", name, href=f"#section-{i}") for i, (name, _) in enumerate(sections)]
    skip = el("a", "Skip to the results", href="#main", class_="skip")
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
    return el(
        "html",
        head,
        el("body", skip, header, el("main", main, id="main"), footer, raw("script", script)),
        lang="en",
    )


def _curves(records: Sequence[Record]) -> list[Element]:
    drawn = [record for record in records if "roc" in record.curves]
    if not any(record.curves for record in records):
        return []
    about = (
        f"ROC and DET are faint where they rest on fewer than {MIN_FALSE_ACCEPTS} impostor pairs. "
        "The marks in a distribution are thresholds. Error versus discard: the genuine pairs whose worse "
        "image has the lowest quality are left out; a falling line says that the quality finds what fails."
    )
    shown = [roc_chart(drawn), det_chart(drawn)] if drawn else []
    for kind, draw in (("cmc", cmc_chart), ("erc", erc_chart)):
        if having := [record for record in records if kind in record.curves]:
            shown.append(draw(having))
    for record in drawn:
        shown += [score_chart(record), rates_chart(record)]
    return [*grid(shown), caption(about)]


def _health(history: Sequence[Row]) -> list[str]:
    """Warnings of the training, each once with its first and last step, and the number of skipped steps."""
    steps: dict[str, list[int]] = {}
    for row in history:
        if row.get("kind") == "health":
            steps.setdefault(str(row["message"]), []).append(row.get("step", 0))
    messages = [
        f"in training, step {min(at)}{f' to {max(at)}' if max(at) > min(at) else ''}: {message}"
        for message, at in steps.items()
    ]
    if num_bad := sum(row.get("kind") == "bad_step" for row in history):
        messages.append(f"{num_bad} training steps were not finite and were skipped")
    return messages


def _run(info: Mapping[str, Mapping[str, Any]]) -> list[Element]:
    return [
        el("details", el("summary", heading), table(heading, list(flat(values)), class_="facts"))
        for heading, values in info.items()
    ]


def grid(charts: Sequence[Element]) -> list[Element]:
    """Charts side by side where there is place."""
    return [el("div", charts, class_="charts")] if charts else []
