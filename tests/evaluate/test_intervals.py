"""Intervals of rates over pairs that share people, against the sums written out and against the truth."""

import itertools

import numpy as np
import pytest

from facescale.evaluate.identification import search
from facescale.evaluate.identity_points import ScoredPairs, identity_point, search_intervals, split_pairs
from facescale.evaluate.intervals import PairTotals, mean_interval, rate_interval, wilson


def variance_written_out(event: np.ndarray, a: np.ndarray, b: np.ndarray, people: int) -> float:
    """By leaving out each person; two pairs that share both people are counted once too often."""
    residual = event - event.mean()
    without = [event[(a != person) & (b != person)].mean() - event.mean() for person in range(people)]
    twice = 0.0
    for i, j in itertools.product(range(len(event)), repeat=2):
        if a[i] != b[i] and {a[i], b[i]} == {a[j], b[j]}:
            twice += residual[i] * residual[j]
    return float(np.square(without).sum() - twice / len(event) ** 2)


@pytest.mark.parametrize("seed", range(5))
def test_the_variance_is_the_sum_over_pairs_that_share_a_person(seed: int) -> None:
    rng = np.random.default_rng(seed)
    people = 7
    a, b = rng.integers(0, people, (2, 60))  # pairs of one person, and repeated pairs, are among them
    a[:people] = b[:people] = np.arange(people)
    tendency = rng.normal(size=people)
    event = tendency[a] + tendency[b] + rng.normal(size=60) > 0.5
    found = mean_interval(event, a, b)
    variance = max(variance_written_out(event, a, b, people), found.rate * (1 - found.rate) / 60)
    assert found.rate == event.mean()
    assert found.effective == pytest.approx(found.rate * (1 - found.rate) / variance)
    low, high = wilson(found.rate, found.effective)
    assert found.low < low < found.rate < high < found.high  # with Student's quantile


def test_independent_pairs_have_wilsons_interval() -> None:
    for end in wilson(0.1, 50):  # the rates at which the observed one is 1.96 deviations away
        assert abs(end - 0.1) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / 50), rel=1e-5)
    people = np.arange(200)
    event = np.arange(200) % 10 == 0
    found = mean_interval(event, people, people)
    assert found.effective == pytest.approx(200, rel=0.02)


@pytest.mark.parametrize(("freedom", "quantile"), [(3, 3.182), (5, 2.571), (10, 2.228), (100, 1.984)])
def test_few_people_widen_the_interval_as_students_quantile_does(freedom: int, quantile: float) -> None:
    low, high = wilson(0.5, 1e9, freedom=freedom)
    assert (high - low) * 1e4 * np.sqrt(10) == pytest.approx(quantile, rel=0.03)


def test_all_impostor_pairs_need_no_list_of_pairs() -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(1, 5, 9)
    person = np.repeat(np.arange(9), images)
    a, b = (person[side] for side in np.triu_indices(len(person), 1))
    a, b = a[a != b], b[a != b]
    listed, counted = PairTotals.of_pairs(a, b, 9), PairTotals.of_all_impostors(images)
    assert listed.num_pairs == counted.num_pairs and listed.square_sum == counted.square_sum
    np.testing.assert_array_equal(listed.per_person, counted.per_person)
    event = rng.random(len(a)) < 0.2
    assert rate_interval(a[event], b[event], listed) == rate_interval(a[event], b[event], counted)


@pytest.mark.parametrize("rate", [0, 1])
def test_no_event_or_only_events_still_have_an_interval(rate: int) -> None:
    a, b = np.triu_indices(20, 1)
    found = mean_interval(np.full(len(a), bool(rate)), a, b)
    assert found.rate == rate and (found.low, found.high) != (rate, rate)
    assert found.effective < len(a) / 10  # 190 pairs of 20 people are not 190 independent ones


def drawn_scores(rng: np.random.Generator, people: int) -> tuple[np.ndarray, ...]:
    """All pairs of three images of each person, whose quality varies from person to person."""
    centre = rng.normal(size=(people, 8))
    spread = rng.gamma(4, 0.15, people)
    x = np.repeat(centre, 3, axis=0) + np.repeat(spread, 3)[:, None] * rng.normal(size=(3 * people, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    person = np.repeat(np.arange(people), 3)
    a, b = np.triu_indices(len(person), 1)
    return (x @ x.T)[a, b], person[a] == person[b], person[a], person[b]


def test_intervals_contain_the_truth_where_binomial_ones_do_not() -> None:
    rng = np.random.default_rng(1)
    scores, same, _, _ = drawn_scores(rng, 1500)
    threshold = np.quantile(scores[~same], 0.99)
    truth = np.mean(scores[~same] >= threshold)
    hits = []
    for _ in range(200):
        scores, same, a, b = drawn_scores(rng, 40)
        kind = ~same
        found = mean_interval(scores[kind] >= threshold, a[kind], b[kind])
        low, high = wilson(found.rate, int(kind.sum()))
        hits.append((found.low <= truth <= found.high, low <= truth <= high))
    adjusted, binomial = np.mean(hits, axis=0)
    assert adjusted > 0.88 > 0.82 > binomial


def test_a_point_has_the_observed_rates_and_both_parts_of_the_uncertainty() -> None:
    scores, same, a, b = drawn_scores(np.random.default_rng(2), 60)
    genuine, impostor = split_pairs(scores, same, a + 1000 * same, b + 1000 * same)  # they share nobody
    threshold = float(np.sort(scores[~same])[::-1][int(0.01 * (~same).sum()) - 1])
    point = identity_point(genuine, impostor, 0.01, threshold, True)
    assert point.tar == np.mean(scores[same] >= threshold)
    assert point.threshold_low < threshold < point.threshold_high
    alone = mean_interval(scores[same] >= threshold, a[same], a[same])
    assert point.tar_low < alone.low and point.tar_high > alone.high
    for end in (point.threshold_low, point.threshold_high):
        share = mean_interval(scores[~same] >= end, a[~same], b[~same])
        assert share.low <= 0.01 <= share.high


def test_people_may_have_any_numbers_and_pairs_any_order() -> None:
    scores, same, a, b = drawn_scores(np.random.default_rng(3), 20)
    order = np.random.default_rng(0).permutation(len(scores))
    plain = split_pairs(scores, same, a, b)
    mixed = split_pairs(scores[order], same[order], 7 * b[order] - 3, 7 * a[order] - 3)
    for one, other in zip(plain, mixed, strict=True):
        assert one.highest(9) == other.highest(9) and one.from_score(0.5) == other.from_score(0.5)


def test_where_too_little_is_known_the_threshold_has_no_upper_end() -> None:
    scores = np.array([0.9, 0.5, 0.1, 0.0])
    impostor = ScoredPairs.of(scores, np.arange(4), np.arange(4, 8))
    genuine = ScoredPairs.of(scores, np.arange(4), np.arange(4))
    point = identity_point(genuine, impostor, 0.25, 0.9, True)
    assert point.threshold_high == np.inf and not point.usable
    assert list(point.intervals()) == ["tar@far=0.25"]


def test_identification_has_intervals_of_people() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(60, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    noisy = np.repeat(x, 4, axis=0) + 0.35 * rng.normal(size=(240, 8))
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    ids = np.repeat(np.arange(60), 4)
    found = search(x[:30], np.arange(30), noisy, ids)
    ends = search_intervals(found, 0.1, ids[:120], ids[120:])
    low, high = ends["tpir@fpir=0.1"]
    assert low < found.tpir_at(0.1) < high
    low, high = ends["threshold@fpir=0.1"]
    assert low < found.threshold_at(0.1) <= high


def test_pairs_between_two_sets_of_images_need_no_list_of_pairs() -> None:
    rng = np.random.default_rng(1)
    images, others = rng.integers(0, 4, 9), rng.integers(0, 4, 9)
    one, other = np.repeat(np.arange(9), images), np.repeat(np.arange(9), others)
    a, b = (side.ravel() for side in np.meshgrid(one, other))
    a, b = a[a != b], b[a != b]
    listed, counted = PairTotals.of_pairs(a, b, 9), PairTotals.between(images, others)
    assert (listed.num_pairs, listed.square_sum) == (counted.num_pairs, counted.square_sum)
    np.testing.assert_array_equal(listed.per_person, counted.per_person)
    event = rng.random(len(a)) < 0.3
    assert rate_interval(a[event], b[event], listed) == rate_interval(a[event], b[event], counted)


def test_people_that_raise_the_threshold_and_the_genuine_scores_narrow_the_interval_of_tar() -> None:
    """People who match easily do so in genuine and in impostor pairs, or the other way round."""
    rng = np.random.default_rng(2)
    person = np.arange(60)
    a, b = (person[side] for side in np.triu_indices(60, 1))
    ease = rng.normal(size=60)
    impostor = ScoredPairs.of(ease[a] + ease[b] + rng.normal(size=len(a)), a, b)
    mated = np.repeat(person, 3)
    noise = rng.normal(size=len(mated))
    together, against = (ScoredPairs.of(sign * 2 * ease[mated] + noise + 3, mated, mated) for sign in (1, -1))
    threshold = float(impostor.scores[int(0.1 * len(impostor.scores))])
    widths = []
    for genuine in (together, against):
        point = identity_point(genuine, impostor, 0.1, threshold, True)
        assert point.tar_low <= point.tar <= point.tar_high
        widths.append(point.tar_high - point.tar_low)
    assert widths[0] < widths[1]
