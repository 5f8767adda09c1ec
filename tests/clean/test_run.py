"""facescale.clean.run: a set with planted errors, a network that tells its people apart."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from facescale.clean.finding import (
    CONFLICT,
    COPY,
    MERGED,
    MISLABELLED,
    SPLIT,
    TEST_IMAGE,
    TEST_PERSON,
    Finding,
)
from facescale.clean.run import Options, Report, clean
from facescale.data import open_reader
from facescale.prepare.convert_data import convert_data
from tests.clean.patterns import FLIPPED, IMAGES
from tests.clean.patterns import MERGED as TWO_PEOPLE
from tests.clean.patterns import SPLIT as HALVES

SURE = Options(precision=0.95)

pytestmark = pytest.mark.usefixtures("with_coarse_model")


def proposals(report: Report, kind: str) -> list[Finding]:
    return [one for one in report.findings if one.kind == kind and one.action]


def test_planted_errors_are_found_and_nothing_else(planted: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = planted
    report = clean(open_reader(train), "any", tmp_path / "out", [f"mine={test}"], SURE)
    assert report.rank1 > 0.9
    wrong = {one.name: one.into for one in proposals(report, MISLABELLED)}
    assert wrong == FLIPPED | {"p13/elsewhere.jpg": "p12"}
    assert [{one.name, one.other} for one in proposals(report, SPLIT)] == [set(HALVES)]
    (merged,) = proposals(report, MERGED)
    assert merged.name == TWO_PEOPLE
    assert sorted(merged.images) == [f"{TWO_PEOPLE}/other{n}.jpg" for n in range(5)]
    pairs = {(one.name, one.other) for one in proposals(report, COPY)}
    assert pairs == {("p02/again.jpg", "p02/1.jpg"), ("p04/cropped.jpg", "p04/2.jpg")}
    (conflict,) = proposals(report, CONFLICT)
    assert (conflict.name, conflict.other) == ("p13/elsewhere.jpg", "p12/3.jpg")
    (photo,) = proposals(report, TEST_IMAGE)
    assert (photo.name, photo.other, photo.where) == ("p19/4.jpg", "t81/same.jpg", "mine")
    people = {(one.name, one.other, one.evidence) for one in proposals(report, TEST_PERSON)}
    assert people == {("p19", "t81", "photo"), ("p17", "known", "embedding")}


def test_the_edit_list_makes_the_set_clean(planted: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = planted
    clean(open_reader(train), "any", tmp_path / "out", [str(test)], SURE)
    edited = open_reader(train, edits=[tmp_path / "out" / "edits.csv"])
    keys = [edited.key(index) for index in range(len(edited))]
    assert not {"p02/again.jpg", "p04/cropped.jpg", "p13/elsewhere.jpg", "p17/0.jpg", "p19/0.jpg"} & set(keys)
    label = dict(zip(keys, edited.ids.tolist(), strict=True))
    assert all(label[key] == label[f"{home}/0.jpg"] for key, home in FLIPPED.items())
    assert label["p06/0.jpg"] == label["p06b/0.jpg"]
    before = open_reader(train)
    assert len(before) - len(edited) == 3 + 5 + 2 * IMAGES and before.num_ids - edited.num_ids == 3


def test_all_files_name_every_finding(planted: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = planted
    out = tmp_path / "out"
    report = clean(open_reader(train), "any", out, [str(test)])
    values = json.loads((out / "findings.json").read_text())
    assert values["proposed"] == report.proposed and values["images"] == report.images
    rows = list(csv.DictReader((out / "findings.csv").read_text().splitlines()))
    assert len(rows) == len(values["findings"]) == len(report.findings)
    assert [row["name"] for row in rows] == [one["name"] for one in values["findings"]]
    page = (out / "clean.html").read_text()
    assert page.count("<img ") > 20 and "p03/7.jpg" in page and "move to p11" in page


def test_pictures_can_be_left_out(planted: tuple[Path, Path], tmp_path: Path) -> None:
    clean(open_reader(planted[0]), "any", tmp_path / "out", options=Options(pictures=False))
    page = (tmp_path / "out" / "clean.html").read_text()
    assert "<img " not in page and "p03/7.jpg" in page


def test_embeddings_are_kept_for_the_next_run(
    planted: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = clean(open_reader(planted[0]), "any", tmp_path / "out")
    monkeypatch.setattr("facescale.clean.embedded.iter_images", None)  # nothing is decoded again
    again = clean(open_reader(planted[0]), "any", tmp_path / "out", options=Options(near=first.near))
    assert again.findings == first.findings


def test_thresholds_by_hand_replace_those_from_the_data(planted: tuple[Path, Path], tmp_path: Path) -> None:
    train, test = planted
    none = Options(label=2.0, split=2.0, merged=2.0, shared=2.0, near=0.99, same=0.999)
    report = clean(open_reader(train), "any", tmp_path / "out", [str(test)], none)
    assert set(report.proposed) == {COPY} and report.near == 0.99
    assert [one.name for one in proposals(report, COPY)] == ["p02/again.jpg"]
    assert np.isnan(report.thresholds[MISLABELLED].precision)


def test_unreadable_images_are_named_and_left_out(planted: tuple[Path, Path], tmp_path: Path) -> None:
    (planted[0] / "p00" / "0.jpg").write_bytes(b"\xff\xd8no picture")
    report = clean(open_reader(planted[0]), "any", tmp_path / "out")
    assert list(report.bad) == ["p00/0.jpg"]
    assert "1 images cannot be read" in "\n".join(report.lines())
    (tmp_path / "bad" / "a").mkdir(parents=True)
    (tmp_path / "bad" / "a" / "0.jpg").write_bytes(b"\xff\xd8no picture")
    with pytest.raises(ValueError, match=r"no image of 'the data set' can be read: 'a/0.jpg'"):
        clean(open_reader(tmp_path / "bad"), "any", tmp_path / "out2")


def test_a_set_without_errors_gets_no_proposal(make_folder, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from facescale.data.loading.decode import encode_jpeg
    from tests.clean.patterns import portrait

    files = {f"p{i:02d}/{n}.jpg": encode_jpeg(portrait(i, n)) for i in range(20) for n in range(6)}
    report = clean(open_reader(make_folder(files, "good")), "any", tmp_path / "out")
    assert report.proposed == {}
    assert (tmp_path / "out" / "edits.csv").read_text().split() == ["action,name,into"]


def test_two_test_sets_of_one_name_are_refused(planted: tuple[Path, Path], tmp_path: Path) -> None:
    tests = [f"lfw={planted[1]}", f"lfw={planted[1]}"]
    with pytest.raises(ValueError, match="2 test sets are called 'lfw'; tell them apart with --against"):
        clean(open_reader(planted[0]), "any", tmp_path / "out", tests)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precision": 1.0}, "precision = 1.0 must lie between 0 and 1"),
        ({"same": 0.0}, "same = 0.0 must lie between 0 and 1"),
        ({"label": float("nan")}, "label = nan must lie between -2 and 2"),
        ({"near": 3.0}, "near = 3.0 must lie between -2 and 2"),
    ],
)
def test_options_that_make_no_sense_are_refused(changed: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(**changed)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["recordio", "list", "lmdb", "shards", "parquet"])
def test_every_format_is_read_and_its_edit_list_fits(
    planted: tuple[Path, Path], tmp_path: Path, form: str
) -> None:
    packed = tmp_path / form
    convert_data(open_reader(planted[0]), packed, form=form)
    report = clean(open_reader(packed), "any", tmp_path / "out", options=SURE)
    assert (report.proposed[MISLABELLED], report.proposed[COPY], report.proposed[CONFLICT]) == (4, 2, 1)
    edited = open_reader(packed, edits=[tmp_path / "out" / "edits.csv"])
    assert report.images - len(edited) == 3 + 5
