"""Say what became of every photo: report.json, report.html with contact sheets, photos.csv."""

import base64
import csv
import html
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from facescale.guard.shown import csv_cell, shown
from facescale.prepare.journal import Journal
from facescale.prepare.quality import Quality
from facescale.prepare.scan import Scan
from facescale.prepare.select import Fate, Selection

if TYPE_CHECKING:
    from facescale.prepare.pipeline import Options

_SHEET = 32  # pictures shown per reason
_NAMED = 100  # identities and pairs named in the page; report.json names all
_FEW = 2  # identities with fewer images teach a network nothing about sameness
_QUALITY = [field.name for field in fields(Quality)]


@dataclass(frozen=True)
class Report:
    """What a preparation made of its photos.

    Attributes:
        photos: folder they came from.
        files: files below it that belong to an identity.
        kept: crops in the data set.
        identities: identities in the data set.
        dropped: files by reason.
        passed_over: files and folders that were not opened, by reason.
        notes: what was done to photos to open them -> how many.
        several_faces: kept photos that show more than one face.
        lost_identities: those of which no photo was kept.
        few_images: kept photos of the identities with fewer than two.
        lookalikes: near-duplicates across identities; one of each pair may have the wrong label.
        limits: that faces had to meet.
        settings: how they were found.
    """

    photos: str
    files: int
    kept: int
    identities: int
    dropped: dict[str, int]
    passed_over: dict[str, int]
    notes: dict[str, int]
    several_faces: int
    lost_identities: list[str]
    few_images: dict[str, int]
    lookalikes: list[tuple[str, str, float]]
    limits: dict[str, float]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """The report as text."""
        yield f"{self.kept:,} of {self.files:,} photos kept, of {self.identities:,} identities"
        yield from (f"  dropped {count:>7,}  {reason}" for reason, count in self.dropped.items())
        yield from (f"  not opened {count:>4,}  {reason}" for reason, count in self.passed_over.items())
        yield from (f"  {count:>7,} photos: {note}" for note, count in self.notes.items())
        if self.several_faces:
            choice = "the wrong one may be chosen (--single-face drops them)"
            yield f"  {self.several_faces:,} kept photos show several faces; {choice}"
        if self.lost_identities:
            lost = self.lost_identities
            yield f"  {len(lost):,} identities have no photo left: {_some(lost)}"
        if self.few_images:
            yield f"  {len(self.few_images):,} identities have one image only: {_some(list(self.few_images))}"
        if self.lookalikes:
            yield f"  {len(self.lookalikes):,} near-duplicate pairs across identities; see report.html"


def write_report(
    folder: Path, root: Path, found: Scan, options: "Options", selection: Selection, journal: Journal
) -> Report:
    """Write report.json, report.html and photos.csv into ``folder``."""
    per_identity = selection.images_per_identity()
    kept = [fate for fate in selection.fates if not fate.reason]
    report = Report(
        photos=str(root),
        files=len(selection.fates),
        kept=len(kept),
        identities=sum(count > 0 for count in per_identity.values()),
        dropped=selection.reasons(),
        passed_over=dict(sorted(Counter(found.passed_over.values()).items())),
        notes=dict(sorted(Counter(note for fate in kept for note in fate.finding.notes).items())),
        several_faces=sum(fate.finding.num_faces > 1 for fate in kept),
        lost_identities=[name for name, count in per_identity.items() if count == 0],
        few_images={name: count for name, count in per_identity.items() if 0 < count < _FEW},
        lookalikes=list(selection.lookalikes),
        limits=asdict(options.limits),
        settings=asdict(options.settings),
    )
    # JSON escapes bytes of names that are not UTF-8; the other files keep them as they are.
    (folder / "report.json").write_text(json.dumps(report.to_dict(), indent=1), "utf-8")
    (folder / "report.html").write_text(
        "".join(_page(report, selection.fates, journal)), "utf-8", errors="backslashreplace"
    )
    _write_csv(folder / "photos.csv", selection.fates, found.passed_over)
    return report


def _write_csv(path: Path, fates: Sequence[Fate], passed_over: Mapping[str, str]) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(
            ["path", "identity", "outcome", "reason", "detail", "equals", "notes", "faces", *_QUALITY]
        )
        for fate in fates:
            finding = fate.finding
            quality = [getattr(finding.quality, name) if finding.quality else "" for name in _QUALITY]
            outcome = "dropped" if fate.reason else "kept"
            who = [fate.source.key, fate.source.identity, outcome, fate.reason, finding.detail, fate.like]
            texts = map(csv_cell, [*who, "; ".join(finding.notes)])
            rows.writerow([*texts, finding.num_faces, *quality])
        for key, reason in passed_over.items():
            rows.writerow([csv_cell(key), "", "passed over", reason])


def _page(report: Report, fates: Sequence[Fate], journal: Journal) -> Iterator[str]:
    yield (
        "<!doctype html><html lang='en'><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'><title>Prepared photos</title><style>"
        "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
        "table{border-collapse:collapse}td,th{text-align:left;padding:.2em 1em .2em 0}"
        "img{width:96px;height:96px;object-fit:contain;background:#222;margin:2px}</style>"
    )
    yield f"<h1>{report.kept:,} crops of {report.identities:,} identities</h1>"
    where = _escaped(report.photos)
    yield f"<p>From {report.files:,} files below <code>{where}</code>; photos.csv names each."
    groups = {"dropped": report.dropped, "not opened": report.passed_over, "converted": report.notes}
    rows = [
        f"<tr><td>{count:,}<td>{what}<td>{_escaped(reason)}"
        for what, counts in groups.items()
        for reason, count in counts.items()
    ]
    yield from ["<table><tr><th>files<th>outcome<th>reason", *rows, "</table>"] if rows else ()
    yield from _names("Identities of which no photo was kept", report.lost_identities)
    yield from _names("Identities with one image only", list(report.few_images))
    pairs = [f"{a} and {b} (cosine {cosine:.3f})" for a, b, cosine in report.lookalikes]
    yield from _names("Near-duplicates across identities", pairs)
    for reason in ("", *report.dropped):
        yield from _sheet(reason, [fate for fate in fates if fate.reason == reason], journal)
    yield "</html>"


def _sheet(reason: str, fates: Sequence[Fate], journal: Journal) -> Iterator[str]:
    """Pictures of some photos with one fate, spread over all of them."""
    yield f"<h2>{_escaped(reason) or 'Kept'} ({len(fates):,})</h2>"
    for number in np.unique(np.linspace(0, len(fates) - 1, min(_SHEET, len(fates))).astype(int)).tolist():
        fate = fates[number]
        name = _escaped(fate.source.key, quote=True)
        picture = journal.picture(fate.source.key)
        if picture:
            data = base64.b64encode(picture).decode("ascii")
            yield f"<img alt='{name}' title='{name}' src='data:image/jpeg;base64,{data}'>"
        else:
            yield f"<p>{name} {_escaped(fate.finding.detail)}"


def _names(title: str, names: Sequence[str]) -> Iterator[str]:
    if names:
        yield f"<h2>{title} ({len(names):,})</h2><ul>"
        yield from (f"<li>{_escaped(name)}" for name in names[:_NAMED])
        yield "</ul>"


def _escaped(text: str, quote: bool = False) -> str:
    return html.escape(shown(text), quote)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (", ..." if len(names) > 5 else "")
