"""The command clean."""

import json
from pathlib import Path

import pytest

from facescale.data import open_reader

DATA = "synthetic:ids=10,images=6,size=32"


def test_clean_writes_an_edit_list_that_other_commands_read(  # type: ignore[no-untyped-def]
    facescale, trained_tiny_run: Path, tmp_path: Path
) -> None:
    out = tmp_path / "check"
    test = "mine=synthetic:ids=3,images=2,size=32"  # the first photos of the first people of DATA
    code, text, err = facescale("clean", DATA, "--model", trained_tiny_run, "--out", out, "--against", test)
    assert (code, err) == (0, "")
    assert "60 images of 10 identities" in text and "person of a test set" in text
    assert {path.name for path in out.iterdir()} >= {
        "edits.csv",
        "clean.html",
        "findings.csv",
        "findings.json",
    }
    edited = open_reader(DATA, edits=[out / "edits.csv"])
    assert {edited.key(index).split("/")[0] for index in range(len(edited))}
    assert edited.num_ids < 10


def test_clean_prints_json(facescale, trained_tiny_run: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = (
        "--model",
        trained_tiny_run,
        "--out",
        tmp_path / "check",
        "--label",
        0.5,
        "--no-pictures",
        "--json",
    )
    code, text, _ = facescale("clean", DATA, *words)
    values = json.loads(text)
    assert code == 0 and values["images"] == 60
    assert values["thresholds"]["mislabelled image"]["score"] == 0.5
    assert values["thresholds"]["mislabelled image"]["precision"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--model", "nothing"), "'nothing' does not exist; name a run folder or a weights file"),
        (("--precision", 2), "precision = 2.0 must lie between 0 and 1"),
        (("--against", "a=missing"), "does not exist"),
    ],
)
def test_mistakes_are_told_in_a_sentence(  # type: ignore[no-untyped-def]
    facescale, trained_tiny_run: Path, tmp_path: Path, words: tuple[object, ...], message: str
) -> None:
    model = () if "--model" in words else ("--model", trained_tiny_run)
    code, _, err = facescale("clean", DATA, "--out", tmp_path / "check", *model, *words)
    assert code == 2 and message in err
