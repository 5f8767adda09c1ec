"""Two models on the same pairs: real differences are found, chance is not taken for one."""

import numpy as np
import pytest

from facescale.evaluate.significance import paired_difference


def test_equal_models_do_not_differ() -> None:
    right = np.tile([1, 1, 0], 100)
    people = np.arange(300)
    found = paired_difference(right, right, people, people)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1) and not found.is_significant


def test_a_clear_gain_is_found_with_its_size_and_direction() -> None:
    people = np.arange(400)
    first, second = (people % 4 > 0), (people % 20 > 0)
    found = paired_difference(first, second, people, people)
    assert found.value == pytest.approx(0.2) and found.low > 0.15 and found.high < 0.25
    assert found.is_significant and found.p == 1 / 2000
    back = paired_difference(second, first, people, people)
    assert back.value == pytest.approx(-0.2) and back.is_significant


def test_a_gain_on_one_person_is_not_taken_for_one_on_all() -> None:
    """20 pairs of one person improve, of 400: pair by pair that looks certain."""
    a = np.repeat(np.arange(20), 20)
    first = np.ones(400)
    first[a == 0] = 0
    found = paired_difference(first, np.ones(400), a, a)
    assert found.value == 0.05 and not found.is_significant
    alone = paired_difference(first, np.ones(400), np.arange(400), np.arange(400))
    assert alone.is_significant


def test_impostor_pairs_count_as_often_as_both_people() -> None:
    rng = np.random.default_rng(0)
    a, b = np.triu_indices(12, 1)
    gain = rng.integers(-1, 2, len(a))
    first, second = (gain < 0).astype(int), (gain > 0).astype(int)
    found = paired_difference(first, second, a, b, num_resamples=4000)
    times = np.random.default_rng(1).multinomial(12, np.full(12, 1 / 12), 4000)
    weights = times[:, a] * times[:, b]
    expected = (weights @ gain) / weights.sum(axis=1)
    assert found.low == pytest.approx(np.quantile(expected, 0.025), abs=0.02)
    assert found.high == pytest.approx(np.quantile(expected, 0.975), abs=0.02)


def test_columns_of_different_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match=r"columns of \[3, 2, 3, 3\] pairs do not belong together; compare"):
        paired_difference(np.ones(3), np.ones(2), np.arange(3), np.arange(3))
