"""Write the tables of docs/results.md that stand between ``<!-- evidence: NAME -->`` and ``<!-- end -->``.

    python benchmarks/evidence_tables.py --out runs/evidence

With ``--out``, the folder of ``evidence.py``, results/evidence/summary.csv is made anew first; the tables
come from that file.
"""

import argparse
import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from evidence import RESULTS, read
from evidence_cases import TABLES
from evidence_summary import SUMMARY, Runs, summarise

PAGE = Path(__file__).resolve().parents[1] / "docs" / "results.md"
_REGION = re.compile(r"(<!-- evidence: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Record = Mapping[str, str]


def render(name: str, records: Sequence[Record]) -> str:
    """Accuracy, and the difference to the reference where there is one: two tables, or one."""
    found = {(record["row"], record["column"]): record for record in records if record["table"] == name}
    rows, columns = ([*dict.fromkeys(cell[axis] for cell in found)] for axis in (0, 1))
    table = TABLES[name]
    parts = [_table(table.rows, rows, columns, {key: _accuracy(record) for key, record in found.items()})]
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


def _accuracy(record: Record) -> str:
    """Mean over the seeds (lowest and highest seed; interval over people)."""
    seeds = _seeds(record["seeds"], *(f"{100 * float(record[key]):.1f}" for key in ("seed_low", "seed_high")))
    mean, low, high = (f"{100 * float(record[key]):.1f}" for key in ("accuracy", "low", "high"))
    return f"{mean} ({seeds}; {low} to {high})"


def _difference(record: Record) -> str:
    """The same of a difference; in bold where three seeds agree on its sign and the people do at 5 %."""
    keys = [f"difference{part}" for part in ("", "_seed_low", "_seed_high", "_low", "_high")]
    gain, lowest, highest, low, high = (float(record[key]) for key in keys)
    value, *ends = (f"{100 * one:+.1f}" for one in (gain, lowest, highest, low, high))
    agree = int(record["difference_seeds"]) >= 3 and lowest * highest > 0 and float(record["p"]) < 0.05
    shown = f"**{value}**" if agree else value
    return f"{shown} ({_seeds(record['difference_seeds'], *ends[:2])}; {ends[2]} to {ends[3]})"


def _seeds(number: str, lowest: str, highest: str) -> str:
    """The range over seeds; how many they are if fewer than three."""
    if number == "1":
        return "1 seed"
    return f"{'2 seeds, ' if number == '2' else ''}{lowest} to {highest}"


def updated(page: str) -> str:
    """The page with all tables made anew."""
    records = read(RESULTS / "summary.csv")
    return _REGION.sub(lambda m: m[1] + render(m[2], records) + m[3], page)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="folder of evidence.py; without it only the page is written")
    arguments = parser.parse_args()
    if arguments.out:
        with (RESULTS / "summary.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, SUMMARY, lineterminator="\n")
            writer.writeheader()
            writer.writerows(summarise(Runs.of(RESULTS / "runs.csv", arguments.out)))
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
