"""The tables of docs/benchmarks.md are those of the recorded results."""

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests.benchmark_scripts import benchmark_scripts

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tables() -> Iterator[ModuleType]:
    with benchmark_scripts("tables") as found:
        yield found["tables"]


def test_the_page_is_what_the_command_writes(tables: ModuleType) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert tables.updated(page) == page, "run: python benchmarks/tables.py"


def test_every_result_file_has_a_table_on_the_page(tables: ModuleType) -> None:
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    files = {path.stem for path in (ROOT / "benchmarks" / "results").glob("*.csv")}
    assert files == tables.TABLES.keys()
    assert all(f"<!-- table: {name} -->" in page for name in files)


def test_every_record_names_its_machine_and_date(tables: ModuleType) -> None:
    for name in tables.TABLES:
        for record in tables.read_records(name):
            assert record["machine"] and record["date"], (name, record)
            assert record["value"] or record["ratio"], (name, record)
            assert bool(record["ratio"]) <= bool(record["alternative"]), (name, record)
            for number in (record["value"], record["to"], record["ratio"]):
                assert not number or float(number) >= 0


def test_a_changed_figure_changes_the_page(tables: ModuleType) -> None:
    record = dict.fromkeys(tables.read_records("pools")[0], "")
    runs = [
        record | {"case": "all", "figure": "ours", "value": "1234", "unit": "ms", "ratio": "2.0"},
        record | {"case": "all", "figure": "ours", "value": "0.5", "to": "0.6", "unit": "ms", "ratio": "3.0"},
    ]
    columns = {"case": "", "ours": "{ours:value}", "ratio": "{ours:ratio}", "other": "{other:value}"}
    assert tables.render(runs, columns) == (
        "| case | ours | ratio | other |\n|---|---|---|---|\n| all | 1,234; 0.5 to 0.6 ms | 2.0, 3.0 | |\n"
    )
