"""A column of a CSV, by image or by person."""

from pathlib import Path

import numpy as np
import pytest

from facescale.evaluate.attributes import named, read_attribute

TABLE = "image,age,quality\nann/1.jpg,old,0.5\nann,young,\n'=x/1.jpg,old,2\nbob/1,,7\n"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "attributes.csv"
    path.write_text(TABLE)
    return path


def test_an_image_has_its_own_value_before_that_of_its_person(table: Path) -> None:
    age = read_attribute(table, "age")
    assert (age.of("ann/1.jpg"), age.of("ann/2.jpg"), age.of("set/ann/9.png")) == ("old", "young", "young")
    assert age.of("=x/1.jpg") == "old" and age.of("bob/1.jpg") is None and age.of("carl/1.jpg") is None


def test_numbers_are_found_without_the_suffix_of_a_file(table: Path) -> None:
    keys = ["ann/1.jpg", "bob/1.png", "carl/1.jpg"]
    found = read_attribute(table, "quality").numbers(keys.__getitem__, [1, 0, 2])
    np.testing.assert_array_equal(found, [7, 0.5, np.nan])


def test_the_one_column_needs_no_name(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("\ufeffperson,sex\nann,f\n\nbob,m\nann,f\n")
    found = read_attribute(path)
    assert (found.column, dict(found.values)) == ("sex", {"ann": "f", "bob": "m"})


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        (TABLE, "ages", r"has no column 'ages' \(did you mean 'age'\?\); choose one of: age, quality"),
        (TABLE, None, r"has several columns; choose one with \?column= of: age, quality"),
        ("person\nann\n", None, r"has 1 column; its first line must name an image or person column"),
        ("", None, r"has 0 column"),
        ("person,sex\nann,f\nann,m\n", None, r"says 'f' and 'm' of 'ann' in its column 'sex'; keep one"),
        ("person,sex\n,f\n", None, r"has a row without a name in its column 'person': \['', 'f'\]"),
        ("person,sex\nann,\n", None, r"column 'sex' of .* is empty; choose another one with \?column=NAME"),
    ],
)
def test_a_file_that_says_nothing_is_answered_in_a_sentence(
    tmp_path: Path, text: str, column: str | None, message: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_attribute(path, column)


@pytest.mark.parametrize("value", ["high", "nan", "inf"])
def test_a_quality_that_is_no_number_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(f"image,q\na,{value}\n")
    with pytest.raises(ValueError, match=rf"column 'q' of .* holds '{value}', which is not a finite number"):
        read_attribute(path).numbers(lambda _: "a", [0])


def test_a_long_list_is_cut_short() -> None:
    assert named(["a", "b", "c", "d"]) == "'a', 'b', 'c', ..." and named(["a"]) == "'a'"
