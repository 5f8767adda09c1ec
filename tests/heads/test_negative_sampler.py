"""The sampler of negatives: exact, uniform, reproducible, and no slower for more classes."""

import numpy as np
import pytest

from facescale.heads.negative_sampler import NegativeSampler


def make(num_classes: int, num_wanted: int, extra_positives: bool = False, seed: int = 0) -> NegativeSampler:
    return NegativeSampler(num_classes, num_wanted, extra_positives=extra_positives, seed=seed, shard=0)


@pytest.mark.parametrize(("num_classes", "num_wanted"), [(100_000, 5000), (100_000, 60_000), (300, 20)])
def test_a_sample_holds_the_positives_and_the_wanted_number_of_distinct_classes(
    num_classes: int, num_wanted: int
) -> None:
    positives = np.array([0, 7, 8, num_classes - 1])
    for step in range(3):
        chosen = make(num_classes, num_wanted).select(positives, step)
        assert len(chosen) == num_wanted
        assert (np.diff(chosen) > 0).all()
        assert chosen[0] >= 0 and chosen[-1] < num_classes
        assert np.isin(positives, chosen).all()


def test_a_fixed_number_of_negatives_comes_on_top_of_the_positives() -> None:
    assert len(make(1000, 50, extra_positives=True).select(np.array([3, 4]), 0)) == 52
    assert len(make(10, 9, extra_positives=True).select(np.array([3, 4]), 0)) == 10


def test_more_positives_than_wanted_classes_are_all_kept() -> None:
    positives = np.arange(0, 60, 2)
    assert make(1000, 10).select(positives, 0).tolist() == positives.tolist()
    assert make(1000, 0).select(positives, 0).tolist() == positives.tolist()


@pytest.mark.parametrize(("num_classes", "num_wanted"), [(2000, 60), (60, 40)])
def test_negatives_are_uniform_alone_and_in_pairs(num_classes: int, num_wanted: int) -> None:
    positives = np.array([5, 17])
    sampler, steps = make(num_classes, num_wanted, extra_positives=True), 4000
    hits = np.zeros(num_classes)
    both = 0  # neighbours 20 and 21 together
    for step in range(steps):
        chosen = sampler.select(positives, step)
        hits[chosen] += 1
        both += 20 in chosen and 21 in chosen
    negatives = np.delete(hits, positives)
    assert (hits[positives] == steps).all()
    share = num_wanted / len(negatives)
    # variance of a hit count is steps share (1 - share); sum of squares over that is chi-squared
    chi2 = ((negatives - steps * share) ** 2).sum() / (steps * share * (1 - share))
    assert abs(chi2 - len(negatives)) < 6 * (2 * len(negatives)) ** 0.5
    pair = share * (num_wanted - 1) / (len(negatives) - 1)
    assert abs(both - steps * pair) < 6 * (steps * pair) ** 0.5


def test_a_sample_depends_on_seed_step_and_shard_only() -> None:
    positives = np.array([1, 2, 900])
    first = make(5000, 100)
    walked = [first.select(positives, step) for step in range(4)]
    assert make(5000, 100).select(positives, 3).tolist() == walked[3].tolist()
    assert make(5000, 100, seed=1).select(positives, 3).tolist() != walked[3].tolist()
    other = NegativeSampler(5000, 100, extra_positives=False, seed=0, shard=1)
    assert other.select(positives, 3).tolist() != walked[3].tolist()
    assert walked[2].tolist() != walked[3].tolist()


def test_looking_ahead_changes_nothing_and_foretells_nearly_all() -> None:
    positives = np.array([1, 2, 900])
    sampler = make(5000, 200)
    foretold = sampler.window(7)
    chosen = sampler.select(positives, 7)
    assert chosen.tolist() == make(5000, 200).select(positives, 7).tolist()
    assert len(foretold) == 200
    assert np.isin(chosen, foretold).sum() >= 197


def test_the_cost_does_not_follow_the_number_of_classes() -> None:
    sampler = make(10**12, 1000)  # impossible to hold in memory
    chosen = sampler.select(np.array([5]), 0)
    assert len(chosen) == 1000
    assert chosen[-1] > 9 * 10**11


def test_too_many_classes_for_the_keys_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot draw 1,318 of 1,152,921,504,606,846,976 classes"):
        make(2**60, 1000).select(np.array([5]), 0)
