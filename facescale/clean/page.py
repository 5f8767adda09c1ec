"""clean.html: every finding with its pictures, and how its threshold came about."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from facescale.clean.finding import (
    CONFLICT,
    COPY,
    KINDS,
    MERGED,
    MISLABELLED,
    SPLIT,
    TEST_IMAGE,
    TEST_PERSON,
    Finding,
    Picture,
)
from facescale.data.images import Images
from facescale.data.readers.base import BadRecordError
from facescale.evaluate.hardest import thumbnail
from facescale.evaluate.report.markup import Element, document, el
from facescale.evaluate.report.page import page_of
from facescale.evaluate.report.tables import caption, table
from facescale.files import replacing

if TYPE_CHECKING:
    from facescale.clean.run import Report

MOST_SHOWN = 60  # findings of a kind; findings.csv has all
_ABOUT = {
    MISLABELLED: "The image is nearer to another identity than to its own. Score: the difference of both "
    "cosines. It is moved where one identity stands out, else dropped.",
    SPLIT: "Two identities are each other's nearest, and clearly nearer than others. Score: their cosine "
    "minus that to other close identities. The smaller becomes part of the larger.",
    MERGED: "The images of the identity fall into two groups, and the smaller is nearer to another identity "
    "than to the larger. Score: the difference of both cosines. The smaller group is dropped.",
    COPY: "Two images of one identity show one photo. Score: agreement of their pixels after one was moved "
    "onto the other. The one with more pixels stays, of equal ones the first.",
    CONFLICT: "One photo under two identities: one label is wrong. Score: agreement of the pixels. The image "
    "that fits its identity better stays.",
    TEST_IMAGE: "The photo is also in a test set. Score: agreement of the pixels.",
    TEST_PERSON: "The identity is in a test set too: by one of its photos, by name, or by embedding. Score: "
    "agreement of the pixels, 1, or the cosine minus that to other close people. The identity is dropped.",
}
_WORDS = {
    "drop_image": "drop",
    "move_image": "move to",
    "merge_identity": "merge into",
    "drop_identity": "drop identity",
}


def write_page(path: Path, report: "Report", sources: Sequence[Images] | None) -> None:
    """Write the page.

    Args:
        path: the file.
        report: what was found.
        sources: images of the data set and of the test sets; None leaves the pictures out.
    """
    sections = [("Summary", _summary(report))]
    for kind in KINDS:
        if found := [one for one in report.findings if one.kind == kind]:
            sections.append((kind.capitalize(), _of_kind(kind, found, sources)))
    with replacing(path) as file:
        file.write_text(document(page_of("Data set check", sections)), encoding="utf-8")


def _summary(report: "Report") -> list[Element]:
    rows = []
    for kind in KINDS:
        looks = sum(one.kind == kind and one.action is None for one in report.findings)
        rows.append([kind, f"{report.proposed.get(kind, 0):,}", f"{looks:,}"])
    thresholds = [
        [kind, *(f"{value:.3f}" if math.isfinite(value) else "\u2013" for value in vars(one).values())]
        for kind, one in report.thresholds.items()
    ]
    lines = list(report.lines())[: 3 if report.bad else 2]
    notes = [line.removeprefix("! ").strip() for line in lines if line.startswith(("!", "  "))]
    about = (
        "Thresholds come from the data: errors of each kind are planted in the embeddings, and the lowest "
        "score is taken from which on the wanted fraction of what is found should be real. Recall is the "
        "fraction of planted errors that reach it. A dash: no score promises it, or it was set by hand."
    )
    near = (
        f"Pairs with cosine {report.near:.3f} or more were compared by their pixels. Unless it was set by "
        "hand, 98 % of copies that were made of some of these images reach it."
    )
    return [
        el("p", lines[0]),
        *([el("ul", [el("li", note) for note in notes], class_="notes")] if notes else []),
        table("Findings", rows, ("what", "proposed", "to look at")),
        table("Thresholds", thresholds, ("what", "score", "expected precision", "recall")),
        caption(about),
        caption(near),
        caption("Nothing was changed. edits.csv holds the proposals; remove a line to reject one."),
    ]


def _of_kind(kind: str, found: Sequence[Finding], sources: Sequence[Images] | None) -> list[Element]:
    proposed = [one for one in found if one.action]
    looks = [one for one in found if not one.action]
    content = [caption(_ABOUT[kind])]
    for title, part in (("Proposed", proposed), ("Below the threshold: worth a look", looks)):
        if part:
            more = (
                f", the first {MOST_SHOWN} of {len(part):,}"
                if len(part) > MOST_SHOWN
                else f" ({len(part):,})"
            )
            cards = [_card(one, sources) for one in part[:MOST_SHOWN]]
            content += [el("h3", title + more), el("div", cards, class_="findings")]
    return content


def _card(one: Finding, sources: Sequence[Images] | None) -> Element:
    columns = [
        el("div", el("p", heading), [_picture(picture, sources) for picture in pictures] if sources else [])
        for heading, pictures in one.shown or ((one.name, ()), (one.other, ()))
    ]
    action = f"{_WORDS[one.action]} {one.into}".strip() if one.action else "look"
    details = [text for text in (one.where, one.evidence) if text]
    label = el(
        "figcaption", el("b", f"{one.score:.3f}"), " ", action, *(f" \u00b7 {text}" for text in details)
    )
    return el("figure", el("div", columns, class_="sides"), label, class_="finding")


def _picture(picture: Picture, sources: Sequence[Images]) -> Element:
    number, row = picture
    images = sources[number]
    try:
        small = thumbnail(images[row])
    except BadRecordError:
        return el("span", images.key(row))
    key = images.key(row)
    return el("img", src=small["uri"], alt=key, title=key, width=small["width"], height=small["height"])
