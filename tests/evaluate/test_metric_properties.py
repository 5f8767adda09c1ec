"""Metrics against scikit-learn and oracles written out by hand, on drawn scores with many ties."""

import itertools

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve
from sklearn.model_selection import KFold

from facescale.evaluate import metrics
from facescale.evaluate.all_pairs import verify_all_pairs
from facescale.evaluate.histogram import histogram_roc
from facescale.evaluate.metrics import pair_accuracy, roc

SEEDS = st.integers(0, 10**6)


def drawn(seed: int, size: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few levels, so that many are equal, and labels of both kinds."""
    rng = np.random.default_rng(seed)
    genuine = rng.random(size) < rng.uniform(0.1, 0.9)
    assume(0 < genuine.sum() < size)
    return (rng.integers(levels, size=size) + genuine * rng.integers(3)) / levels, genuine


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=st.integers(2, 60), levels=st.integers(1, 40))
def test_the_curve_is_that_of_scikit_learn(seed: int, size: int, levels: int) -> None:
    scores, genuine = drawn(seed, size, levels)
    for drop in (False, True):
        far, tar, thresholds = roc_curve(genuine, scores, drop_intermediate=drop)
        curve = roc(scores, genuine, drop_collinear=drop)
        np.testing.assert_allclose(curve.far, far, atol=1e-12)
        np.testing.assert_allclose(curve.tar, tar, atol=1e-12)
        np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert abs(curve.auc - roc_auc_score(genuine, scores)) < 1e-12


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, size=st.integers(2, 40), levels=st.integers(1, 30), far=st.floats(0.001, 1))
def test_tar_at_far_is_that_of_counting(seed: int, size: int, levels: int, far: float) -> None:
    scores, genuine = drawn(seed, size, levels)
    points = [(0.0, 0.0)]
    for threshold in sorted(set(scores), reverse=True):
        accepted = scores >= threshold
        points.append((accepted[~genuine].mean(), accepted[genuine].mean()))
    curve = roc(scores, genuine)
    below = max(tar for rate, tar in points if rate <= far * metrics.ROUND_UP)
    assert curve.tar_at(far) == below
    distance = min(abs(rate - far) for rate, _ in points)
    nearest = max((rate, tar) for rate, tar in points if abs(abs(rate - far) - distance) < 1e-15)
    assert curve.tar_at(far, "nearest") == nearest[1]


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, size=st.integers(2, 60), levels=st.integers(2, 50))
def test_at_the_equal_error_rate_both_errors_are_equal(seed: int, size: int, levels: int) -> None:
    scores, genuine = drawn(seed, size, levels)
    errors = [
        (np.mean(scores[~genuine] >= t), np.mean(scores[genuine] < t))
        for t in [*sorted(set(scores)), scores.max() + 1]
    ]
    crossings = []
    for (fmr, fnmr), (next_fmr, next_fnmr) in itertools.pairwise(errors):
        before, after = fmr - fnmr, next_fmr - next_fnmr
        if before >= 0 >= after and before > after:
            crossings.append(fmr + before / (before - after) * (next_fmr - fmr))
    np.testing.assert_allclose(crossings, roc(scores, genuine).eer, atol=1e-12)
    assert crossings


def accuracy_by_scikit_learn(distance: np.ndarray, same: np.ndarray, folds: int) -> list[float]:
    found, grid = [], np.arange(0, 4, 0.01)
    for train, test in KFold(folds, shuffle=False).split(distance):
        right = [np.mean((distance[train] < t) == same[train]) for t in grid]
        threshold = grid[int(np.argmax(right))]
        found.append(float(np.mean((distance[test] < threshold) == same[test])))
    return found


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, pairs=st.integers(6, 60), folds=st.integers(2, 6))
def test_fold_accuracies_are_those_of_loops_over_folds_and_thresholds(
    seed: int, pairs: int, folds: int
) -> None:
    rng = np.random.default_rng(seed)
    x, same = rng.normal(size=(2 * pairs, 4)), rng.random(pairs) < 0.5
    x[1::2][same] = x[0::2][same] + rng.normal(0, 0.7, (int(same.sum()), 4))
    unit = metrics.unit_rows(x)
    distance = np.square(unit[0::2] - unit[1::2]).sum(axis=1)
    result = pair_accuracy(x, same, num_folds=folds)
    np.testing.assert_allclose(result.folds, accuracy_by_scikit_learn(distance, same, folds), atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, size=st.integers(4, 80), bins=st.integers(2, 50))
def test_the_histogram_has_the_rates_of_counting_at_its_edges(seed: int, size: int, bins: int) -> None:
    rng = np.random.default_rng(seed)
    scores, genuine = rng.normal(size=size), rng.random(size) < 0.5
    assume(0 < genuine.sum() < size)
    curve = histogram_roc(scores, genuine, bins)
    width = (scores.max() - scores.min()) / bins
    for index, threshold in enumerate(curve.thresholds):
        edge = threshold - width / 2 + 2e-6
        assert curve.far[index] == np.mean(scores[~genuine] >= edge)
        assert curve.tar[index] == np.mean(scores[genuine] >= edge)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, images=st.integers(12, 60), people=st.integers(2, 6))
def test_all_pairs_read_the_curve_of_scikit_learn(seed: int, images: int, people: int) -> None:
    rng = np.random.default_rng(seed)
    x, ids = (
        metrics.unit_rows(rng.normal(size=(images, 8))).astype(np.float32),
        rng.integers(people, size=images),
    )
    a, b = np.triu_indices(images, 1)
    same = ids[a] == ids[b]
    assume(0 < same.sum() < len(same))
    found = verify_all_pairs(x, ids, (0.5, 0.1))
    scores = np.einsum("nd,nd->n", x[a].astype(np.float64), x[b].astype(np.float64))
    far, tar, _ = roc_curve(same, scores, drop_intermediate=False)
    for rate, value in found.tar.items():
        assert abs(value - tar[far <= rate * (1 + 1e-12)].max()) <= 1.01 / same.sum()
