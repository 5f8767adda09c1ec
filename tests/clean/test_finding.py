"""facescale.clean.finding: proposals become an edit list."""

import csv
from pathlib import Path

from facescale.clean.finding import (
    COPY,
    MERGED,
    MISLABELLED,
    SPLIT,
    TEST_PERSON,
    Finding,
    edits_of,
    write_csv,
)


def test_dropping_wins_over_moving_and_merging() -> None:
    found = [
        Finding(MISLABELLED, "a/1", "b", 1.0, "move_image", "b"),
        Finding(COPY, "a/1", "b/2", 0.9, "drop_image"),
        Finding(COPY, "a/3", "b/2", 0.9, "drop_image"),
        Finding(MISLABELLED, "a/3", "b", 1.0, "move_image", "b"),
        Finding(SPLIT, "c", "d", 1.0, "merge_identity", "d"),
        Finding(TEST_PERSON, "c", "x", 1.0, "drop_identity"),
        Finding(SPLIT, "e", "f", 1.0, "merge_identity", "f"),
        Finding(SPLIT, "g", "h", 0.1),
        Finding(MERGED, "i", "2 of 5", 1.0, "drop_image", images=("i/1", "i/2")),
    ]
    edits = edits_of(found)
    assert edits.images == {"a/1": None, "a/3": None, "i/1": None, "i/2": None}
    assert edits.identities == {"c": None, "e": "f"}


def test_names_of_any_bytes_are_kept_and_formulas_are_not_run(tmp_path: Path) -> None:
    name = "=1+1/\udcff \n.jpg"
    write_csv(tmp_path / "findings.csv", [Finding(COPY, name, "b", 0.91234, "drop_image")])
    with (tmp_path / "findings.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["name"] == "'" + name and row["score"] == "0.9123" and row["action"] == "drop_image"
