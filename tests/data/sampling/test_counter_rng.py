"""Counter-based random numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facescale.data.sampling import counter_rng
from facescale.data.sampling.counter_rng import hash64, permuted, uniform


@settings(deadline=None)  # the machine may be busy
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**63), epoch=st.integers(0, 10**6))
def test_an_order_holds_every_position_once(size: int, seed: int, epoch: int):
    assert sorted(permuted(np.arange(size), size, seed, epoch)) == list(range(size))


def test_a_place_in_the_order_does_not_depend_on_what_is_asked_with_it():
    whole = permuted(np.arange(1000), 1000, 7, 3)
    assert permuted(np.array([417]), 1000, 7, 3) == whole[417]
    assert np.array_equal(permuted(np.arange(1000)[::-1], 1000, 7, 3), whole[::-1])


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = {tuple(permuted(np.arange(50), 50, seed, epoch)) for seed in range(20) for epoch in range(20)}
    assert len(orders) == 400


def test_every_small_order_is_equally_likely():
    orders = np.array([permuted(np.arange(4), 4, 0, epoch) for epoch in range(2400)])
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 100.0) ** 2 / 100.0).sum() < 49.7  # chi-square, 23 degrees of freedom, p = 0.001


def test_positions_of_42_million_are_found_without_listing_them():
    places = permuted(np.arange(2000), 42_474_557, 0, 0)
    assert len(np.unique(places)) == 2000
    assert abs(places.mean() / 42_474_557 - 0.5) < 0.03


def test_a_position_outside_of_the_order_is_refused():
    with pytest.raises(ValueError, match=r"positions must lie in 0\.\.9, got 3\.\.10"):
        permuted(np.array([3, 10]), 10, 0)


def test_numbers_are_those_of_all_versions_to_come():
    # Written down once: a change of these numbers changes every run that is resumed across versions.
    assert [f"{x:016x}" for x in hash64(1, 2, np.arange(3))] == [
        "e68e6fc01df08360",
        "b815246f417cade2",
        "e930af93af0daf48",
    ]
    assert permuted(np.arange(8), 1000, 5, 6).tolist() == [291, 312, 367, 256, 956, 217, 940, 779]


def test_uniform_numbers_fill_the_unit_interval_evenly_and_without_correlation():
    u = uniform(4, 0, np.arange(20_000)).astype(np.float64)
    assert u.shape == (20_000, 4)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.stack([np.histogram(column, 50, (0, 1))[0] for column in u.T])
    assert (
        ((counts - 400.0) ** 2 / 400.0).sum(axis=1) < 86
    ).all()  # chi-square, 49 degrees of freedom, p = 0.001
    assert np.abs(np.corrcoef(u.T) - np.eye(4)).max() < 0.03


def test_uniform_numbers_belong_to_their_streams():
    table = uniform(3, 9, np.arange(5), np.arange(2)[:, None])
    assert table.shape == (2, 5, 3)
    assert np.array_equal(uniform(3, 9, np.array([4]), np.array([1]))[0], table[1, 4])
    assert len(np.unique(table)) == table.size


def test_one_integer_and_an_array_are_scrambled_alike():
    words = [0, 1, 23, 2**63, 2**64 - 1]
    from_array = counter_rng._scramble(np.array(words, np.uint64))
    assert [counter_rng.scrambled(word) for word in words] == from_array.tolist()
    assert counter_rng.scrambled(2**64 + 23) == counter_rng.scrambled(23)


def test_float64_numbers_are_those_of_splitmix64_started_at_the_hash_of_the_key():
    state = int(counter_rng.hash64(7, 9)[0])
    expected = [counter_rng.scrambled(state + i * 0x9E3779B97F4A7C15) / 2**64 for i in (1, 2, 3)]
    assert counter_rng.uniform64(3, 7, 9) == pytest.approx(expected, abs=2.0**-53)
