"""The names that a converted set keeps beside it."""

from pathlib import Path

import pytest

from facescale.data import open_reader
from facescale.data.readers.base import people_of
from facescale.data.readers.labels_file import original_names
from facescale.prepare.convert_data import convert_data
from tests.pictures import fill

NAMES = ["anna", "ben", "cara"]


@pytest.mark.parametrize("form", ["recordio", "im2rec", "folder"])
def test_a_converted_set_knows_the_names_of_its_source(tmp_path: Path, form: str) -> None:
    source = fill(tmp_path / "faces", {f"{name}/{i}.jpg": f"{name} {i}" for name in NAMES for i in range(2)})
    convert_data(open_reader(source), tmp_path / "new", form=form)
    people = people_of(open_reader(tmp_path / "new"))
    assert people.names == NAMES and people.named


def test_leading_zeros_do_not_count_and_later_people_keep_their_folder(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('{"0": "anna", "1": "ben", "12": "cara"}')
    assert original_names(tmp_path, ["00", "01", "12", "zoe", "77"]) == ["anna", "ben", "cara", "zoe", "77"]


def test_without_a_file_or_with_one_name_twice_labels_are_names(tmp_path: Path) -> None:
    assert original_names(tmp_path, ["0", "1"]) == ["0", "1"]
    (tmp_path / "labels.json").write_text('{"0": "1"}')
    assert original_names(tmp_path, ["0", "1"]) == ["0", "1"]


@pytest.mark.parametrize("text", ["[1, 2]", "{", '{"0": 1}', "\xff"])
def test_a_file_of_another_kind_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "labels.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=r"labels.json' does not map labels to names; put back the file"):
        original_names(tmp_path, ["0"])
