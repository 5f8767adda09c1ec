"""Exact search against one that is written out plainly."""

import numpy as np
import pytest

from facescale.gallery import nearest_people, search, too_alike


def units(count: int, dim: int = 16, seed: int = 0) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_BLOCK", 37)
    monkeypatch.setattr(search, "_QUERIES", 5)


@pytest.mark.parametrize("people", [1, 3, 37, 200])
@pytest.mark.parametrize("top", [1, 4])
def test_the_nearest_people_are_those_of_the_highest_cosine(people: int, top: int) -> None:
    template_PD, query_QD = units(people), units(12, seed=1)
    names = [f"p{number}" for number in range(people)]
    for query, matches in zip(query_QD, nearest_people(query_QD, names, template_PD, top), strict=True):
        cosines = template_PD @ query
        order = np.argsort(-cosines)[:top]
        assert [one.name for one in matches] == [names[place] for place in order]
        np.testing.assert_allclose([one.cosine for one in matches], cosines[order], rtol=1e-5)


def test_of_equal_people_the_first_enrolled_comes_first() -> None:
    template_PD = np.repeat(np.eye(1, 16, dtype=np.float32), 100, axis=0)
    names = [f"p{number}" for number in range(100)]
    (found,) = nearest_people(template_PD[:1], names, template_PD, 3)
    assert [one.name for one in found] == ["p0", "p1", "p2"]


def test_embeddings_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match="faces have 8-d embeddings and the gallery 16-d ones"):
        nearest_people(units(1, 8), ["a"], units(1, 16))


def test_the_nearest_stranger_and_the_pairs_that_are_too_alike() -> None:
    template_PD = units(90)
    template_PD[70] = template_PD[3]
    names = [f"p{number}" for number in range(90)]
    cosine_PP = template_PD @ template_PD.T
    np.fill_diagonal(cosine_PP, -2)
    nearest, pairs = too_alike(names, template_PD, 0.6)
    assert [one.name for one in nearest] == [names[place] for place in cosine_PP.argmax(axis=1)]
    expected = {(names[a], names[b]) for a, b in np.argwhere(cosine_PP >= 0.6).tolist() if a < b}
    assert {(a, b) for a, b, _ in pairs} == expected
    assert pairs[0][:2] == ("p3", "p70") and pairs[0][2] == pytest.approx(1)


def test_one_person_has_no_stranger() -> None:
    assert too_alike(["a"], units(1), 0.5) == ([], [])
