"""Names from elsewhere neither act on a terminal, nor fake a line, nor run in a spreadsheet."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from facescale.guard.shown import brief, csv_cell, escaped, from_csv_cell, shown, shown_lines


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("Zoë 李/1.jpg", "Zoë 李/1.jpg"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("a\x9bb\x07\x7f\0", r"a\x9bb\x07\x7f\x00"),
        ("gpj.\u202eexe", r"gpj.\u202eexe"),
        ("J\udcfcrgen", r"J\udcfcrgen"),
    ],
)
def test_what_could_act_on_a_terminal_stands_as_an_escape(text: str, line: str) -> None:
    assert shown(text) == line


def test_lines_of_our_own_stay_lines() -> None:
    assert shown_lines("one\ttwo\nthree\x1b\r") == "one\ttwo\nthree\\x1b\\r"
    assert escaped("J\udcfcrgen\x1b") == "J\udcfcrgen\\x1b"


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\t=1", "\r=1", "'=1", "''@x"])
def test_no_spreadsheet_takes_a_cell_for_a_formula(text: str) -> None:
    assert csv_cell(text) == f"'{text}"


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet="'=+-@a\t"))
def test_every_cell_can_be_had_again(text: str) -> None:
    assert not csv_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert from_csv_cell(csv_cell(text)) == text


def test_a_long_or_deep_value_is_cut_short() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    assert brief(deep) == "[[[[[...]]]]]"
    assert len(brief("x" * 10**6)) < 250
    assert brief({"b": 1, "a": "2"}) == "{'a': '2', 'b': 1}"
