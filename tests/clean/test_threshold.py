"""facescale.clean.threshold: the estimates hold on mixtures whose truth is known."""

import numpy as np
import pytest

from facescale.clean.threshold import threshold_for


def mixture(num_right: int, num_wrong: int, apart: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, whether each is an error, and scores of planted errors."""
    draw = np.random.default_rng(0)
    scores = np.concatenate([draw.normal(0, 1, num_right), draw.normal(apart, 1, num_wrong)])
    return scores, np.arange(len(scores)) >= num_right, draw.normal(apart, 1, 5000)


@pytest.mark.parametrize("apart", [4.0, 5.0])
@pytest.mark.parametrize("precision", [0.5, 0.75, 0.9])
def test_the_precision_is_at_least_the_one_asked_for(apart: float, precision: float) -> None:
    scores, is_wrong, planted = mixture(10_000, 200, apart)
    found = threshold_for(scores, planted, precision)
    above = scores >= found.score
    assert above.sum() > 20
    assert is_wrong[above].mean() >= precision
    assert found.precision >= precision
    assert found.recall == pytest.approx(np.mean(planted >= found.score))


def test_a_lower_precision_finds_more() -> None:
    scores, _, planted = mixture(10_000, 200, 4.0)
    low, high = (threshold_for(scores, planted, precision) for precision in (0.5, 0.9))
    assert low.score < high.score and low.recall > high.recall


def test_right_items_alone_give_no_threshold() -> None:
    scores, _, planted = mixture(10_000, 0, 9.0)
    assert threshold_for(scores, planted, 0.75).score == np.inf
    assert threshold_for(scores, np.empty(0), 0.75).score == np.inf
    assert threshold_for(np.empty(0), planted, 0.75).score == np.inf


def test_a_few_items_give_no_threshold() -> None:
    planted = np.random.default_rng(0).normal(9, 1, 1000)
    assert threshold_for(np.array([9.0, 9.1, 9.2, 0.1, 0.0]), planted, 0.75).score == np.inf


def test_scores_that_all_look_like_errors_are_no_errors() -> None:
    scores = np.random.default_rng(1).normal(5, 1, 100)  # all are far from the others' mean, so none is
    found = threshold_for(scores, np.random.default_rng(0).normal(5, 1, 1000), 0.75)
    assert np.mean(scores >= found.score) < 0.05


def test_a_threshold_by_hand_says_what_it_reaches() -> None:
    scores, _, planted = mixture(100, 5, 4.0)
    found = threshold_for(scores, planted, 0.75, fixed=4.0)
    assert found.score == 4.0 and np.isnan(found.precision) and found.recall == pytest.approx(0.5, abs=0.03)
