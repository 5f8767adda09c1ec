"""Results accumulate: one file for each protocol and checkpoint, whatever the protocol is called."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from facescale.evaluate.figures import Figures
from facescale.evaluate.records import MeasuredModel, Record, newest_of_each, read_records, write_record
from facescale.model_card import Card, Contract

FIRST = MeasuredModel("step_00000100", "a" * 32, 100)
SECOND = MeasuredModel("step_00000200", "b" * 32, 200)


def record(name: str, model: MeasuredModel = FIRST, value: float = 0.5, source: str = "there") -> Record:
    return Record.of(Figures(name, "ijb", source, {"rank1": value}, {"images": 7}), model)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    kept = record("lfw")
    path = write_record(tmp_path / "results", kept)
    assert read_records(tmp_path / "results") == [kept]
    assert json.loads(path.read_text())["model"]["fingerprint"] == "a" * 32


@pytest.mark.parametrize("name", ["a/../b", "Ünïcode ✓", "a\x07\nb", "\udc80", "x" * 300, ""])
def test_any_name_of_a_protocol_makes_a_file_in_the_folder(tmp_path: Path, name: str) -> None:
    path = write_record(tmp_path, record(name))
    assert path.parent == tmp_path and [path] == list(tmp_path.iterdir())
    assert read_records(tmp_path)[0].name == name


def test_another_protocol_setting_or_checkpoint_replaces_nothing(tmp_path: Path) -> None:
    for one in (record("a"), record("b"), record("a", SECOND), record("a", source="elsewhere"), record("A")):
        write_record(tmp_path, one)
    assert len(read_records(tmp_path)) == 5
    write_record(tmp_path, record("a", value=0.75))
    assert len(read_records(tmp_path)) == 5
    assert sorted(one.figures["rank1"] for one in read_records(tmp_path)) == [0.5, 0.5, 0.5, 0.5, 0.75]


def test_groups_that_were_asked_for_stay_with_the_same_weights(tmp_path: Path) -> None:
    def grouped(of: Record, by: str) -> Record:
        return replace(of, result={**of.result, "groups": {"column": by, "notes": [f"one has no {by}"]}})

    write_record(tmp_path, grouped(record("a"), "age"))
    write_record(tmp_path, record("a", value=0.75))
    (kept,) = read_records(tmp_path)
    assert (kept.figures["rank1"], kept.result["groups"]["column"]) == (0.75, "age")
    assert kept.result["notes"] == ["a: one has no age"]
    write_record(tmp_path, grouped(record("a"), "sex"))
    assert read_records(tmp_path)[0].result["groups"]["column"] == "sex"
    write_record(tmp_path, record("a", replace(FIRST, fingerprint="c" * 32)))
    assert "groups" not in read_records(tmp_path)[0].result


def test_a_damaged_result_is_replaced(tmp_path: Path) -> None:
    path = write_record(tmp_path, record("a"))
    path.write_text("{")
    write_record(tmp_path, record("a", value=0.75))
    assert [one.figures["rank1"] for one in read_records(tmp_path)] == [0.75]


def test_records_are_in_the_order_of_the_training(tmp_path: Path) -> None:
    for one in (record("a", SECOND), record("a")):
        write_record(tmp_path, one)
    assert [one.model.step for one in read_records(tmp_path)] == [100, 200]


def test_one_record_of_each_protocol_is_shown_of_the_chosen_checkpoint_if_it_has_one() -> None:
    records = [record("a"), record("b"), record("a", SECOND)]
    assert [(one.name, one.model.step) for one in newest_of_each(records)] == [("a", 200), ("b", 100)]
    chosen = newest_of_each(records, "step_00000100")
    assert [(one.name, one.model.step) for one in chosen] == [("a", 100), ("b", 100)]
    assert [one.model.step for one in newest_of_each([record("a"), record("a", SECOND)], "step_7")] == [200]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": 2}', '{"format": 1, "model": {}}'])
def test_a_damaged_result_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"the result '.*x.json' cannot be read \(.*\); delete it"):
        read_records(tmp_path)


def test_the_weights_say_what_they_were_trained_on_and_how_images_are_prepared() -> None:
    info = {"data": ["a/", "b/"], "licence": "MIT", "step": 7}
    card = Card(Contract(size=56, flip=False), {"name": "r18"}, info=info)
    model = MeasuredModel.of(card, "f" * 32, "net.pth", None)
    assert (model.data, model.licence, model.step, model.backbone) == ("a/ + b/", "MIT", 7, "r18")
    assert model.contract == "56x56, (RGB 0..255 - 127.5) / 127.5, one view"
    assert MeasuredModel.of(replace(card, info={}), "f" * 32, "net.pth", None).licence == ""
