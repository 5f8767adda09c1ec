"""facescale.clean.search: exact, whatever the blocks."""

import numpy as np
import pytest

from facescale.clean import search
from facescale.clean.search import NOBODY, nearest


@pytest.mark.parametrize("columns", [3, 7, 50])
def test_the_nearest_are_those_of_all_cosines(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setattr(search, "COLUMNS", columns)
    monkeypatch.setattr(search, "ROWS", 4)
    draw = np.random.default_rng(0)
    queries, rows = (draw.normal(size=(n, 5)).astype(np.float32) for n in (9, 20))
    left_out = np.arange(9)
    cosine = queries @ rows.T
    cosine[left_out, left_out] = NOBODY
    value, place = nearest(queries, rows, 4, left_out)
    assert np.array_equal(place, np.argsort(-cosine, axis=1)[:, :4])
    assert np.allclose(value, -np.sort(-cosine, axis=1)[:, :4])


def test_what_does_not_exist_has_no_cosine() -> None:
    row = np.ones((1, 1), np.float32)
    value, _ = nearest(row, row, 3, np.zeros(1, np.int64))
    assert (value == NOBODY).all()
