"""Write the tables of docs/benchmarks.md from the recorded figures in benchmarks/results/*.csv.

python benchmarks/tables.py

A record is one measured figure: case (row of the table), figure, value (with `to`: a range), unit, the ratio
to a named alternative, a note, the machine, and the commit and date that recorded it. Several records of one
case and figure are several runs. A table stands in the page between `<!-- table: NAME -->` and
`<!-- end -->`; NAME is that of the CSV file.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"
_REGION = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIELD = re.compile(r"\{([^{}]+):(value|number|ratio|note)\}")

Record = Mapping[str, str]

_HEADS = ("full", "Partial FC 0.1", "AttFC, 65,536 slots", "AttFC, 0.3 of the identities", "F2C, 1 %")
_COUNTS = ("100,000", "1,000,000", "10,000,000")

# table -> header -> cell; a cell names figures, as {figure:value}, which adds the unit, {figure:number},
# {figure:ratio} or {figure:note}. The first header is that of the cases.
TABLES: dict[str, dict[str, str]] = {
    "train_step": {
        "network": "",
        "plain": "{plain:number}",
        "torch bf16": "{torch bf16:number}",
        "facescale": "{facescale:number}",
        "facescale / plain": "{facescale:ratio}",
    },
    "backbones": {
        "backbone": "",
        "parameters": "{parameters:value}",
        "multiply-adds": "{multiply-adds:value}",
        "batch": "{batch:number}",
        "plain": "{plain speed:number}",
        "facescale": "{facescale speed:number}",
        "ckpt": "{checkpointing speed:number}",
        "facescale / plain": "{facescale speed:ratio}",
        "plain, MB": "{plain memory:number}",
        "facescale, MB": "{facescale memory:number}",
        "ckpt, MB": "{checkpointing memory:number}",
        "ckpt / plain": "{checkpointing memory:ratio}",
    },
    "loader": {
        "run": "",
        "plain": "{plain:value}",
        "facescale": "{facescale:value}",
        "ratio": "{facescale:ratio}",
    },
    "formats": {
        "format": "",
        "images per CPU-second": "{speed:number}",
        "of the bare decoder": "{speed:ratio} {speed:note}",
        "of RecordIO": "{to RecordIO:ratio} {to RecordIO:note}",
    },
    "opening": {
        "10,000,000 records": "",
        "plain": "{plain time:value}, {plain memory:value}",
        "facescale": "{time:value}, {memory:value}",
        "of plain": "{time:ratio} of the time, {memory:ratio} of the memory",
    },
    "opening_again": {
        "40,000,000 images": "",
        "opened again": "{time:value}, {memory:value}",
        "of the first row's time": "{time:ratio}",
        "of its memory": "{memory:ratio}",
    },
    "synthetic": {"": "", "images/s": "{speed:number}"},
    "class_centres": {
        "1,000,000 identities": "",
        "step": "{step:value}",
        "dense reference": "{dense reference step:value}",
        "ratio": "{step:ratio} {step:note}",
        "extra memory": "{extra memory:value}, {extra memory:ratio} {extra memory:note}",
    },
    "checkpoints": {
        "training": "",
        "size": "{size:value}",
        "a checkpoint takes": "{wait:value}",
        "of 1,000 steps": "{wait:note}",
        "checksums take": "{checksums:value}",
        "of 1,000 steps (target 1 %)": "{checksums:note}",
    },
    "rows_on_disk": {
        "8,192 negatives, 512-d": "",
        "step": "{step:value}",
        "ratio to rows in memory, six runs (target 2)": "{step:ratio}",
        "resident memory": "{resident memory:value}",
    },
    "heads": {
        "head": "",
        **{count: f"{{{count} step:value}}, {{{count} memory:value}}" for count in _COUNTS},
    },
    "heads_gpu": {
        "identities": "",
        **{head: f"{{{head} step:value}}, {{{head} memory:value}}" for head in _HEADS},
    },
    "pools": {
        "": "",
        "facescale": "{facescale:value}",
        "linked list": "{linked list:value}",
        "ratio": "{facescale:ratio}",
    },
    "protocols": {
        "": "",
        "facescale": "{facescale:value}",
        "alternative": "{alternative:value}",
        "ratio": "{facescale:ratio}",
        "peak memory": "{peak:value}",
    },
    "gallery_index": {
        "1,000,000 people, 512-d": "",
        "exact": "{exact:value}",
        "index": "{index:value}",
        "exact / index": "{index:ratio} {index:note}",
    },
    "serve_load": {
        "": "",
        "requests": "{requests:number}",
        "wrong answers": "{wrong:number}",
        "p50": "{p50:value}",
        "p95": "{p95:value}",
        "p99": "{p99:value}",
        "a second": "{rate:number}",
        "highest memory": "{memory:value}",
    },
    "planned_memory": {
        "margin | head": "",
        **{
            place: f"{{{place} planned:number}} / {{{place} peak:number}} = {{{place} planned:ratio}}"
            for place in ("device", "host", "disk")
        },
    },
    "planned_trainings": {
        "training at 112 pixels, 400 identities; head alone, 512-d": "",
        "planned, MB": "{planned:number}",
        "measured peak, MB": "{peak:number}",
        "planned / peak": "{planned:ratio}",
    },
}


def read_records(name: str) -> list[Record]:
    """The records of ``benchmarks/results/NAME.csv``."""
    with (RESULTS / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def render(records: Sequence[Record], columns: Mapping[str, str]) -> str:
    """A Markdown table: one row per case, in the order of the records."""
    case_header, *headers = columns
    lines = [
        f"| {' | '.join([case_header, *headers])} |".replace("  ", " "),
        "|" + "---|" * (case_header.count(" | ") + len(columns)),
    ]
    for case in dict.fromkeys(record["case"] for record in records):
        runs = [record for record in records if record["case"] == case]
        cells = [_cell(runs, columns[header]) for header in headers]
        lines.append(f"| {' | '.join([case, *cells])} |".replace("  ", " "))
    return "\n".join(lines) + "\n"


def _cell(runs: Sequence[Record], template: str) -> str:
    """Fill a template; what lacks its figure disappears with the punctuation around it."""
    names = {match[1] for match in _FIELD.finditer(template)}
    if not any(record["figure"] in names for record in runs):
        return ""
    return (
        _FIELD.sub(lambda match: _field(runs, match[1], match[2]), template).strip(" ,").replace(",  ", " ")
    )


def _field(runs: Sequence[Record], figure: str, what: str) -> str:
    records = [record for record in runs if record["figure"] == figure]
    if what in ("ratio", "note"):
        return ", ".join(record[what] for record in records if record[what])
    numbers = "; ".join(_number(record) for record in records if record["value"])
    return f"{numbers} {records[0]['unit']}" if what == "value" and numbers else numbers


def _number(record: Record) -> str:
    """The value with thousands separators, or the range."""
    ends = [end for end in (record["value"], record["to"]) if end]
    return " to ".join(f"{int(end):,}" if end.isdecimal() else end for end in ends)


def updated(page: str) -> str:
    """The page with all tables made anew."""
    return _REGION.sub(lambda m: m[1] + render(read_records(m[2]), TABLES[m[2]]) + m[3], page)


def main() -> None:
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
