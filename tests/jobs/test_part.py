"""facescale.jobs.part: the part of a work that one job does."""

import os

import pytest

from facescale.jobs import Part


def test_every_name_and_every_place_is_in_one_part() -> None:
    parts = Part(1, 5).all()
    for key in ("a/1.jpg", "b/2.jpg", os.fsdecode(b"\xfe.jpg"), ""):
        assert sum(part.owns(key) for part in parts) == 1
    assert [place for part in parts for place in part.span(13)] == list(range(13))
    assert {len(part.span(13)) for part in parts} == {2, 3}


def test_names_are_spread_over_the_parts() -> None:
    names = [f"{n // 10}/{n % 10}.jpg" for n in range(4000)]
    for part in Part(1, 4).all():
        assert 900 < sum(map(part.owns, names)) < 1100


def test_a_part_is_named_as_i_of_n() -> None:
    assert Part.parse("3/16") == Part(3, 16)
    assert (str(Part(3, 16)), Part(3, 16).name) == ("3/16", "3-of-16")


@pytest.mark.parametrize("text", ["3", "3/", "-1/4", "a/b", "1/2/3", "1.0/2"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be i/n, such as 3/16 for the third of 16"):
        Part.parse(text)


@pytest.mark.parametrize("text", ["0/4", "5/4", "0/0", "1/100001"])
def test_parts_that_do_not_exist_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"there is no shard .*; shards count from 1 to n, .*--array=1-16"):
        Part.parse(text)
