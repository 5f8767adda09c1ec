"""Two models on the same pairs: real differences are found, chance is not taken for one."""

import numpy as np
import pytest

from facescale.evaluate.metrics import tar_at_far
from facescale.evaluate.significance import paired_difference, paired_tar_difference


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


def scored_pairs(seed: int, gain: float) -> tuple[np.ndarray, ...]:
    """Scores of two models on pairs of 80 people, whether they are genuine, and the people."""
    rng = np.random.default_rng(seed)
    a = np.concatenate([np.repeat(np.arange(80), 3), rng.integers(0, 80, 2000)])
    b = np.concatenate([a[:240], (a[240:] + rng.integers(1, 80, 2000)) % 80])
    same = a == b
    first = np.round(rng.normal(size=len(a)) + 1.5 * same, 2)  # two digits: many scores are equal
    return first, np.round(first + gain * same + 0.1 * rng.normal(size=len(a)), 2), same, a, b


def test_the_observed_difference_of_tar_is_that_of_the_roc() -> None:
    first, second, same, a, b = scored_pairs(0, 0.5)
    for far in (0.1, 0.01):
        found = paired_tar_difference(first, second, same, a, b, far, num_resamples=50)
        expected = tar_at_far(second, same, far) - tar_at_far(first, same, far)
        assert found.value == pytest.approx(expected)


def test_a_gain_of_tar_is_found_and_chance_is_not_taken_for_one() -> None:
    first, second, same, a, b = scored_pairs(1, 0.8)
    found = paired_tar_difference(first, second, same, a, b, 0.1)
    assert found.is_significant and 0 < found.low < found.value < found.high
    first, second, same, a, b = scored_pairs(2, 0.0)
    assert not paired_tar_difference(first, second, same, a, b, 0.1).is_significant
    same_model = paired_tar_difference(first, first, same, a, b, 0.1, num_resamples=50)
    assert (same_model.value, same_model.low, same_model.high, same_model.p) == (0, 0, 0, 1)


def test_resamples_of_tar_are_those_of_the_roc_of_repeated_pairs() -> None:
    first, second, same, a, b = scored_pairs(3, 0.3)
    found = paired_tar_difference(first, second, same, a, b, 0.05, num_resamples=400)
    rng, drawn = np.random.default_rng(9), []
    for _ in range(400):
        times = rng.multinomial(80, np.full(80, 1 / 80))
        rows = np.repeat(np.arange(len(a)), times[a] * np.where(a == b, 1, times[b]))
        drawn.append(tar_at_far(second[rows], same[rows], 0.05) - tar_at_far(first[rows], same[rows], 0.05))
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert (found.low, found.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_a_rate_that_the_pairs_do_not_support_is_refused() -> None:
    columns = scored_pairs(0, 0)
    with pytest.raises(ValueError, match=r"FAR 0.001 cannot be compared on \d+ genuine and .* false accepts"):
        paired_tar_difference(*columns, 0.001)
    with pytest.raises(ValueError, match=r"columns of \[3, 2240, 2240, 2240, 2240\] pairs do not belong"):
        paired_tar_difference(columns[0][:3], *columns[1:], 0.1)
