from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from facescale import registry
from facescale.registry.docstrings import documented_parameters, first_line, meanings_of
from facescale.registry.options import Option, options_of, type_text


class Base:
    """A base.

    Args:
        rate: share of
            the classes.
        both: see below.
    """


class Part(Base):
    """A part of a whole.

    More words.

    Args:
        both: whether ``rate`` counts twice.
        **rest: of something.

    Raises:
        ValueError: never.
    """

    def __init__(self, size: int, *, rate: float = 0.5, both: bool = False, kind: str | None = None) -> None:
        self.values = (size, rate, both, kind)


TABLE = {"part": Part, "small": partial(Part, 3)}


def test_a_component_is_built_by_name() -> None:
    assert registry.build("thing", TABLE, "part", 4, rate=1).values == (4, 1, False, None)
    assert registry.build("thing", TABLE, "small", kind="x").values == (3, 0.5, False, "x")


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"unknown thing 'prt' \(did you mean 'part'\?\); choose one of: part, sm"
    ):
        registry.build("thing", TABLE, "prt", 4)


def test_all_wrong_options_are_named() -> None:
    with pytest.raises(ValueError) as caught:
        registry.build("thing", TABLE, "part", 4, rat=1, rate="a", both=1)
    assert str(caught.value) == (
        "thing 'part' has no option 'rat' (did you mean 'rate'?); it takes: rate, both, kind; "
        "rate of thing 'part' is 'a'; it must be a finite number; "
        "both of thing 'part' is 1; it must be true or false"
    )


def test_meanings_come_from_the_class_and_its_bases() -> None:
    assert meanings_of(TABLE["small"]) == {
        "both": "whether 'rate' counts twice",
        "rest": "of something",
        "rate": "share of the classes",
    }
    assert first_line(TABLE["small"]) == "A part of a whole."


def test_a_docstring_without_arguments_documents_nothing() -> None:
    assert documented_parameters("Only a sentence.") == {}


def test_options_are_the_keyword_only_parameters() -> None:
    options = options_of(Part)
    assert options["rate"] == Option("rate", float, 0.5, "share of the classes")
    assert [*options] == ["rate", "both", "kind"] and options["kind"].meaning == ""


@pytest.mark.parametrize(
    ("annotation", "good", "bad", "expected"),
    [
        (int, [0, -3], [1.0, True, "1", None], "a whole number"),
        (float, [0, 0.5, -3], [True, "1", float("inf"), float("nan"), None], "a finite number"),
        (bool, [True], [1, 0.0, "true"], "true or false"),
        (str, ["a"], [1, None], "a text"),
        (float | None, [0.5, None], ["a", float("nan")], "a finite number"),
        (str | Path | None, ["a", Path("a"), None], [1], "a text"),
        (Literal["a", "b"], ["a"], ["c", 1], "one of a, b"),
        (Sequence[int] | None, [[1, 2], (3,), None], ["ab", [1.5], [True], 3], "a list of whole numbers"),
        (tuple[float, float], [(0.1, 1), [0.1, 1]], [(1,), [1], "ab"], "a list of 2 finite numbers"),
        (int | Literal["all"], [3, "all"], ["some", 0.5], "a whole number or one of all"),
        (Annotated[float, Field(ge=0)], [0.0], [-1, "a"], "a finite number"),
        (Any, [1, "a"], [], "Any"),
    ],
)
def test_values_are_held_to_the_type(annotation: Any, good: list[Any], bad: list[Any], expected: str) -> None:
    option = Option("x", annotation, None, "")
    assert all(option.accepts(value) for value in good)
    assert not any(option.accepts(value) for value in bad)
    assert option.expected == expected


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (float | None, "float | None"),
        (Literal["a", "b"], "'a' | 'b'"),
        (dict[str, list[int]], "dict[str, list[int]]"),
        (Annotated[str, "duration"], "duration"),
        (list[Annotated[int, Field(ge=0)]], "list[int]"),
    ],
)
def test_types_are_written_as_a_reader_would(annotation: Any, text: str) -> None:
    assert type_text(annotation) == text
