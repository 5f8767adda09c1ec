"""Runs side by side: settings, figures, and which differences are real."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from facescale.evaluate.compare import compare
from facescale.evaluate.records import read_records, write_record

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def runs(tiny_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two runs that differ in one setting, and by half of the pairs that are wrong."""
    pair = tmp_path / "a" / "run", tmp_path / "b" / "run"
    for path in pair:
        shutil.copytree(tiny_run, path, ignore=shutil.ignore_patterns("features"))
    config = pair[1] / "config.toml"
    config.write_text(config.read_text().replace("scale = 16", "scale = 32"))
    for record in read_records(pair[1] / "results"):
        right = record.curves["pairs"]["right"]
        better = {**record.curves, "pairs": {**record.curves["pairs"], "right": [1] * len(right)}}
        write_record(
            pair[1] / "results", replace(record, curves=better, figures={**record.figures, "accuracy": 1})
        )
    return pair


def test_settings_figures_and_differences_are_compared(runs: tuple[Path, Path]) -> None:
    found = compare(runs)
    assert list(found.names) == ["a/run", "b/run"]
    assert found.settings == {"head.margin.scale": ["16", "32"]}
    accuracy = next(row for row in found.figure_rows() if row["figure"] == "accuracy")
    assert accuracy["b/run"] == "100.00%" and accuracy["a/run"] != "100.00%"
    auc = next(row for row in found.figure_rows() if row["figure"] == "auc")
    assert 0 <= float(auc["a/run"]) <= 1  # a number, not per cent
    difference = found.differences["unseen", "accuracy", "a/run", "b/run"]
    right = np.array(found.records["a/run"][0].curves["pairs"]["right"])
    assert difference.value == pytest.approx(1 - right.mean()) and difference.is_significant


def test_other_pairs_are_not_compared(runs: tuple[Path, Path]) -> None:
    for record in read_records(runs[1] / "results"):
        pairs = {**record.curves["pairs"], "first": record.curves["pairs"]["second"]}
        write_record(runs[1] / "results", replace(record, curves={**record.curves, "pairs": pairs}))
    found = compare(runs)
    assert not found.differences
    assert found.notes == ["unseen: a/run and b/run were measured on different pairs"]


def test_the_command_prints_tables_json_and_a_page(
    runs: tuple[Path, Path], tmp_path: Path, facescale: Command
) -> None:
    page = tmp_path / "compare.html"
    code, out, err = facescale("compare", *map(str, runs), "--out", str(page))
    assert code == 0, err
    assert "head.margin.scale  16" in out and "b/run less a/run" in out and f"report: {page}" in out
    text = page.read_text()
    for word in (
        "Settings that differ",
        "ROC: unseen",
        "unseen/accuracy",
        "b/run less a/run",
        "bootstrap over people",
    ):
        assert word in text
    code, out, _ = facescale("compare", *map(str, runs), "--json")
    assert json.loads(out)["settings"] == {"head.margin.scale": ["16", "32"]}


def test_runs_of_one_name_are_told_apart(runs: tuple[Path, Path]) -> None:
    assert list(compare([runs[0], runs[0]]).names)[1].endswith("a/run (2)")


def test_one_run_or_no_run_is_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"1 run cannot be compared; name two or more"):
        compare(runs[:1])
    with pytest.raises(ValueError, match="is not a run folder"):
        compare([runs[0], tmp_path])
