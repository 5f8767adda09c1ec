"""Ranks and rates among distractors, against one comparison after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facescale.evaluate import distractors
from facescale.evaluate.blocks import products
from facescale.evaluate.distractors import search_distractors
from facescale.evaluate.highest import Highest, RowHighest


def unit(*degrees: float) -> np.ndarray:
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


def test_distractors_bar_a_pair_only_above_it() -> None:
    probes, ids = unit(0, 10, 90), np.array([1, 1, 2])
    found = search_distractors(probes, ids, unit(15))  # 10 degrees to the mate; distractor 15 and 5 away
    assert found.rank_P.tolist() == [1, 2]
    assert (found.at_rank(1), found.at_rank(2)) == (0.5, 1.0)
    assert search_distractors(probes, ids, unit(180)).at_rank(1) == 1.0


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6), probes=st.integers(3, 14), others=st.integers(1, 60), ranks=st.integers(1, 5)
)
def test_ranks_and_rates_equal_a_loop_over_all_comparisons(
    seed: int, probes: int, others: int, ranks: int
) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(probes, 3)), rng.normal(size=(others, 3))
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    ids = rng.integers(2, size=probes)
    pairs = [(i, j) for i in range(probes) for j in range(probes) if i != j and ids[i] == ids[j]]
    impostors = sorted((float(a @ b) for a in x for b in y), reverse=True)
    expected = [min(1 + sum(x[i] @ d >= x[i] @ x[j] for d in y), ranks + 1) for i, j in pairs]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distractors, "PROBES", 4)
        patch.setattr(distractors, "GALLERY", 9)
        found = search_distractors(x, ids, y, fars=(0.5, 0.1), num_ranks=ranks)
    assert found.rank_P.tolist() == expected
    assert found.num_impostor == len(impostors)
    for far in (0.5, 0.1):
        allowed = int(far * len(impostors) * (1 + 1e-12))
        assert (far in found.unsupported) == (allowed < 10)
        if allowed >= 10:
            threshold = impostors[allowed]
            assert found.thresholds[far] == pytest.approx(threshold)
            assert found.tar[far] == pytest.approx(np.mean([x[i] @ x[j] > threshold for i, j in pairs]))


def test_the_highest_scores_do_not_depend_on_how_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facescale.evaluate.highest._SPARE", 3)
    scores = np.random.default_rng(0).permutation(400).reshape(4, 100).astype(np.float32)
    of_all, of_rows = Highest(7), RowHighest(4, 7)
    for start in range(0, 100, 9):
        part = scores[:, start : start + 9]
        of_all.add(part[part > of_all.bound])
        row, column = np.nonzero(part > of_rows.bound[:, None])
        of_rows.add(row, part[row, column])
    assert of_all.ranked().tolist() == sorted(scores.ravel(), reverse=True)[:7]
    np.testing.assert_array_equal(of_rows.table(), -np.sort(-scores, axis=1)[:, :7])
    few = RowHighest(2, 3)
    few.add(np.array([1]), np.array([0.5], np.float32))
    assert few.table().tolist() == [[-2, -2, -2], [0.5, -2, -2]]


def test_blocks_cover_a_product_once() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
    whole = np.full((5, 7), np.nan)
    for rows, columns, block in products(a, b, 2, 3):
        assert np.isnan(whole[rows, columns]).all() and block.size <= 6
        whole[rows, columns] = block
    np.testing.assert_allclose(whole, a @ b.T)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: search_distractors(unit(0, 1, 2), np.arange(3), unit(9)),
            "each of the 3 probes has a different identity; add a second image",
        ),
        (
            lambda: search_distractors(unit(0, 1), np.zeros(2), unit(9), num_ranks=3).at_rank(4),
            "rank 4 was not counted; use 1 to 3",
        ),
    ],
)
def test_wrong_input_is_answered_in_a_sentence(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
