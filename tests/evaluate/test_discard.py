"""Error versus discard, against the mean over all orders of the pairs, and against a loop."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc

from facescale.evaluate.attributes import Attribute
from facescale.evaluate.discard import NORM, error_discard, fnmr_after_discard, partial_area
from facescale.evaluate.scored import ImagePairs, ScoredImages

PAIRS = st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None)
@given(PAIRS)
def test_the_curve_is_the_mean_over_all_orders_of_equal_qualities(pairs: list[tuple[bool, int]]) -> None:
    error, quality = (np.array(column) for column in zip(*pairs, strict=True))
    gone = np.arange(len(pairs))
    expected = np.zeros(len(pairs))
    orders = list(permutations(range(len(pairs))))
    for order in orders:
        ranked = error[sorted(order, key=lambda i: (quality[i], order.index(i)))]
        expected += [ranked[k:].mean() for k in gone]
    found = fnmr_after_discard(error, quality, gone / len(pairs))
    np.testing.assert_allclose(found, expected / len(orders), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(5, 300))
def test_the_partial_area_is_that_of_scikit_learn(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    error, quality = rng.random(count) < 0.3, rng.normal(size=count)
    shares = np.linspace(0, 0.2, 401)
    ranked = error[np.argsort(quality)]
    rates = []
    for share in shares:  # a pair that is discarded in part takes that part of its error with it
        whole, part = int(share * count), share * count % 1
        lost = ranked[:whole].sum() + (part * ranked[whole] if part else 0)
        rates.append((ranked.sum() - lost) / (count - share * count))
    assert partial_area(error, quality) == pytest.approx(auc(shares, rates) / 0.2)


def test_a_quality_that_finds_the_errors_is_best_and_one_of_nothing_changes_nothing() -> None:
    error = np.arange(100) < 10
    shares = np.array([0, 0.05, 0.1, 0.5])
    np.testing.assert_allclose(fnmr_after_discard(error, np.arange(100), shares), [0.1, 5 / 95, 0, 0])
    np.testing.assert_allclose(fnmr_after_discard(error, np.ones(100), shares), 0.1)
    np.testing.assert_allclose(fnmr_after_discard(error, -np.arange(100), shares)[-1], 0.2)


def scored(norms: np.ndarray) -> ScoredImages:
    """Four genuine pairs (0, 1), (2, 3), ... of which the first two fail; one impostor pair."""
    genuine = ImagePairs(np.array([0.1, 0.2, 0.8, 0.9]), np.arange(0, 8, 2), np.arange(1, 8, 2))
    impostor = ImagePairs(np.array([0.3]), np.array([0]), np.array([2]))
    return ScoredImages(lambda i: f"x/{i}.jpg", np.arange(8) // 2, norms, genuine, impostor)


def test_the_quality_of_a_pair_is_that_of_its_worse_image() -> None:
    found = error_discard(scored(np.array([1.0, 9, 9, 2, 3, 3, 4, 4])), 0.1, 0.5)
    assert found is not None and (found.quality, found.pairs, found.fnmr) == (NORM, 4, 0.5)
    assert found.partial == pytest.approx(found.best)
    assert found.curve()["fnmr"][0] == 0.5 and found.curve()["fnmr"][50] == pytest.approx(0, abs=1e-9)
    assert found.to_dict()["partial_auc_up_to"] == 0.2


def test_a_column_takes_the_place_of_the_norm_and_images_without_it_are_named() -> None:
    quality = Attribute("q.csv", "sharpness", {f"x/{i}": str(i) for i in range(7)})
    found = error_discard(scored(np.ones(8)), 0.1, 0.5, quality)
    assert found is not None and (found.quality, found.pairs) == ("sharpness", 3)
    assert found.notes == (
        "1 images have no sharpness in 'q.csv'; their pairs are in no error-versus-discard curve: 'x/7.jpg'",
    )


def test_without_a_false_reject_there_is_no_curve() -> None:
    assert error_discard(scored(np.ones(8)), 0.1, 0.0) is None


def test_values_that_make_no_curve_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 errors and 3 qualities \(0 not finite\) make no curve"):
        fnmr_after_discard(np.zeros(2, bool), np.ones(3), np.zeros(1))
    with pytest.raises(ValueError, match=r"2 errors and 2 qualities \(1 not finite\)"):
        partial_area(np.zeros(2, bool), np.array([1, np.nan]))
    with pytest.raises(ValueError, match=r"shares from 0.5 to 1 cannot be discarded; use 0 to below 1"):
        fnmr_after_discard(np.zeros(2, bool), np.ones(2), np.array([0.5, 1]))
