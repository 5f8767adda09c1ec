"""docs/losses.md lists every margin with its options, their defaults and the heads it works with."""

import inspect
from pathlib import Path

from facescale.margins import MARGINS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "losses.md"
HEADS = ["full", "partial_fc", "attfc", "f2c"]


def rows() -> dict[str, list[str]]:
    """Cells of the first table by margin name."""
    lines = PAGE.read_text().split("\n\n")
    table = next(block for block in lines if block.startswith("| name | target class"))
    cells = [line.replace("\\|", "/").strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return {row[0].strip("`"): row for row in cells}


def test_the_page_lists_every_margin_once() -> None:
    assert sorted(rows()) == sorted(MARGINS)


def test_options_and_defaults_on_the_page_are_those_of_the_code() -> None:
    for name, row in rows().items():
        parameters = inspect.signature(MARGINS[name]).parameters.values()
        shared = ("interclass_filter", "compat")
        options = [f"{p.name}={p.default}" for p in parameters if p.name not in shared]
        assert row[4].split() == options, name


def test_heads_on_the_page_are_those_that_a_margin_does_not_refuse() -> None:
    for name, row in rows().items():
        works = [head for head in HEADS if head not in MARGINS[name].refuses]
        assert row[5] == ("all" if works == HEADS else ", ".join(works)), name
