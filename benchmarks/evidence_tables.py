"""Write the tables of docs/results.md that stand between ``<!-- evidence: NAME -->`` and ``<!-- end -->``.

    python benchmarks/evidence_tables.py

They come from results/evidence/summary.csv, which ``evidence.py --summarise`` writes.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evidence import RESULTS, read
from evidence_cases import TABLES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
_REGION = re.compile(r"(<!-- evidence: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Record = Mapping[str, str]


def render(name: str, records: Sequence[Record]) -> str:
    """Accuracy, and the difference to the reference where there is one: two tables, or one."""
    found = {(record["row"], record["column"]): record for record in records if record["table"] == name}
    rows, columns = ([*dict.fromkeys(cell[axis] for cell in found)] for axis in (0, 1))
    table = TABLES[name]
    most = max((int(record["seeds"]) for record in found.values()), default=0)
    accuracies = {cell: _accuracy(record, most) for cell, record in found.items()}
    parts = [_table(table.rows, rows, columns, accuracies)]
    compared = {key: _difference(record) for key, record in found.items() if record["difference"]}
    if compared:
        others = [row for row in rows if any((row, column) in compared for column in columns)]
        parts.append(_table(f"less {table.reference}", others, columns, compared))
    return "\n".join(parts)


def _table(
    header: str, rows: Sequence[str], columns: Sequence[str], cells: Mapping[tuple[str, str], str]
) -> str:
    lines = [
        [header, *columns],
        *([row, *(cells.get((row, column), "") for column in columns)] for row in rows),
    ]
    texts = [f"| {' | '.join(line)} |".replace("  ", " ") for line in lines]
    return "\n".join([texts[0], "|---" * len(lines[0]) + "|", *texts[1:]]) + "\n"


def _accuracy(record: Record, most: int) -> str:
    """Mean, spread over seeds where there are several, the interval over people; fewer seeds are said."""
    mean, spread, low, high = (record[key] for key in ("accuracy", "spread", "low", "high"))
    around = f" ± {100 * float(spread):.1f}" if spread else ""
    seeds = f", {record['seeds']} of {most} seeds" if int(record["seeds"]) < most else ""
    return f"{100 * float(mean):.1f}{around} ({100 * float(low):.1f} to {100 * float(high):.1f}{seeds})"


def _difference(record: Record) -> str:
    """Points with their interval; in bold where it is significant at 5 %."""
    keys = ("difference", "difference_low", "difference_high")
    value, low, high = (f"{100 * float(record[key]):+.1f}" for key in keys)
    shown = f"**{value}**" if float(record["p"]) < 0.05 else value
    return f"{shown} ({low} to {high})"


def updated(page: str) -> str:
    """The page with all tables made anew."""
    records = read(RESULTS / "summary.csv")
    return _REGION.sub(lambda m: m[1] + render(m[2], records) + m[3], page)


def main() -> None:
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
