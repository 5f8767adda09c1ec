"""Who is on the images of a pair protocol."""

import numpy as np
import pytest

from facescale.data.images import IndexedImages
from facescale.evaluate.people import BY_FOLDER, BY_PAIRS, people_of
from facescale.evaluate.protocols.pairs import Pairs


def pairs(keys: list[str], rows: list[tuple[int, int, bool]]) -> Pairs:
    images = IndexedImages([np.zeros((4, 4, 3), np.uint8)] * len(keys), keys)
    a, b, same = (np.array(column) for column in zip(*rows, strict=True))
    return Pairs("x", images, a, b, same, np.arange(len(rows)) % 2)


def test_a_folder_is_a_person_where_all_pairs_agree() -> None:
    person, known = people_of(pairs(["x/a/1", "x/a/2", "x/b/1", "x/b/2"], [(0, 1, True), (2, 0, False)]))
    assert known == BY_FOLDER and person.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("keys", [["1", "2", "3", "4", "5"], ["a/1", "b/1", "a/2", "b/2", "c/1"]])
def test_otherwise_genuine_pairs_connect_images(keys: list[str]) -> None:
    rows = [(0, 1, True), (3, 1, True), (2, 4, False), (0, 4, False)]
    person, known = people_of(pairs(keys, rows))
    assert known == BY_PAIRS and person.tolist() == [0, 0, 2, 0, 4]
