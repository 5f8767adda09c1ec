"""What the verification figures mean, on data whose answer can be worked out."""

import time

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from facescale.evaluate import metrics
from facescale.evaluate.fold_rules import contiguous_folds
from facescale.evaluate.metrics import pair_accuracy, roc, tar_at_far, threshold_at_far

RNG = np.random.default_rng(7)


def noisy_scores(
    num_genuine: int = 3000, num_impostor: int = 3000, decimals: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping, rounded (hence tied) scores and their labels."""
    rng = np.random.default_rng(3)
    scores = np.concatenate([rng.normal(0.5, 0.15, num_genuine), rng.normal(0.1, 0.12, num_impostor)])
    return scores.round(decimals), np.arange(len(scores)) < num_genuine


def accuracy_by_loops(embeddings: np.ndarray, is_same: np.ndarray, num_folds: int) -> list[float]:
    """The published rule written out: 400 thresholds, every fold, no shortcuts."""
    x = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    distance = ((x[0::2] - x[1::2]) ** 2).sum(axis=1)
    fold, accuracies = contiguous_folds(len(is_same), num_folds), []
    for f in range(num_folds):
        train, test = fold != f, fold == f
        right = [np.sum((distance[train] < t) == is_same[train]) for t in np.arange(0, 4, 0.01)]
        accuracies.append(np.mean((distance[test] < np.argmax(right) * 0.01) == is_same[test]))
    return accuracies


def test_pair_accuracy_is_that_of_the_rule_written_as_loops() -> None:
    embeddings, is_same = RNG.normal(size=(460, 8)), RNG.random(230) < 0.4
    embeddings[1::2][is_same] = embeddings[0::2][is_same] + RNG.normal(size=(is_same.sum(), 8))
    assert pair_accuracy(embeddings, is_same, num_folds=7).folds.tolist() == accuracy_by_loops(
        embeddings, is_same, 7
    )


@pytest.mark.parametrize("rule", metrics.PAIR_RULES)
def test_collapsed_embeddings_score_half(rule: str) -> None:
    is_same = np.arange(600) % 2 == 0
    wrong = {"facex": 0.0}  # where a pair on the threshold is neither genuine nor impostor
    assert pair_accuracy(np.ones((1200, 16)), is_same, rule=rule).mean == wrong.get(rule, 0.5)


@pytest.mark.parametrize("rule", metrics.PAIR_RULES)
def test_perfect_embeddings_score_one_whatever_their_length(rule: str) -> None:
    person = np.zeros((400, 16))
    person[np.arange(400), np.arange(400) % 16] = 1  # so that lengths round away
    embeddings, is_same = np.repeat(person, 2, axis=0), np.arange(400) % 2 == 0
    embeddings[1::2][~is_same] = -embeddings[0::2][~is_same]
    embeddings *= RNG.uniform(0.1, 50, (800, 1))
    result = pair_accuracy(embeddings, is_same, rule=rule)
    assert (result.mean, result.std) == (1.0, 0.0)


def facex_by_loops(scores: np.ndarray, is_same: np.ndarray, num_folds: int) -> list[float]:
    """FaceX-Zoo's rule as its description says it, one threshold after the other."""
    found = []
    for part in np.array_split(np.arange(len(scores)), num_folds):
        train = np.setdiff1d(np.arange(len(scores)), part)
        low, high = min(scores[train]), max(scores[train])
        best, threshold = -2.0, low
        for step in range(1, 1001):
            at = low + (high - low) / 1000 * step
            gap = np.mean(scores[train][is_same[train]] > at) - np.mean(scores[train][~is_same[train]] > at)
            if gap > best:
                best, threshold = gap, at
        right = [
            s > threshold if same else s < threshold
            for s, same in zip(scores[part], is_same[part], strict=True)
        ]
        found.append(np.mean(right))
    return found


def test_the_rule_facex_is_that_of_its_description() -> None:
    embeddings, is_same = RNG.normal(size=(240, 8)), RNG.random(120) < 0.5
    embeddings[1::2][is_same] = embeddings[0::2][is_same] + RNG.normal(size=(is_same.sum(), 8))
    unit = metrics.unit_rows(embeddings)
    scores = (unit[0::2] * unit[1::2]).sum(axis=1)
    result = pair_accuracy(embeddings, is_same, rule="facex", num_folds=6)
    assert result.folds.tolist() == facex_by_loops(scores, is_same, 6)


def test_folds_given_by_number_need_not_be_contiguous() -> None:
    embeddings, is_same = RNG.normal(size=(400, 8)), RNG.random(200) < 0.5
    fold = contiguous_folds(200, 10)
    shuffle = RNG.permutation(200)
    mixed = embeddings.reshape(200, 2, 8)[shuffle].reshape(400, 8)
    expected = pair_accuracy(embeddings, is_same)
    assert (pair_accuracy(mixed, is_same[shuffle], fold_ids=fold[shuffle]).folds == expected.folds).all()


def test_a_zero_embedding_is_at_distance_one_from_all_others() -> None:
    embeddings = np.ones((40, 4))
    is_same = np.arange(20) % 2 == 0
    embeddings[0::2][~is_same] = 0
    assert pair_accuracy(embeddings, is_same).mean == 1.0


def test_roc_and_auc_agree_with_scikit_learn() -> None:
    scores, genuine = noisy_scores()
    curve = roc(scores, genuine)
    far, tar, thresholds = roc_curve(genuine, scores, drop_intermediate=False)
    np.testing.assert_array_equal(curve.far, far)
    np.testing.assert_array_equal(curve.tar, tar)
    np.testing.assert_array_equal(curve.thresholds, thresholds)
    assert curve.auc == pytest.approx(roc_auc_score(genuine, scores), abs=1e-12)
    thin = roc(scores, genuine, drop_collinear=True)
    np.testing.assert_array_equal(thin.far, roc_curve(genuine, scores)[0])


def test_tar_at_far_follows_its_three_rules() -> None:
    # Points (FAR, TAR): (0, 0) (0, .5) (.25, .5) (.25, .75) (.5, .75) (.5, 1) (1, 1)
    scores, genuine = np.array([9, 8, 7, 6, 5, 4, 3, 2]), np.array([1, 1, 0, 1, 0, 1, 0, 0], bool)
    assert tar_at_far(scores, genuine, 0.2) == 0.5
    assert tar_at_far(scores, genuine, 0.25) == 0.75
    assert tar_at_far(scores, genuine, 0.2, rule="nearest") == 0.75
    assert tar_at_far(scores, genuine, 0.1, rule="nearest") == 0.5
    tied = np.array([9, 9, 7, 7, 5, 5, 3, 3])  # (0, 0) (.25, .25)?: each pair of equal scores is one step
    labels = np.array([1, 0, 1, 0, 1, 0, 1, 0], bool)
    assert tar_at_far(tied, labels, 0.3, rule="interpolate") == pytest.approx(0.3)
    assert tar_at_far(tied, labels, 0.3) == 0.25


def test_rates_survive_the_rounding_of_decimal_fractions() -> None:
    scores, genuine = np.arange(200.0), np.arange(200) % 2 == 0
    accepted = [
        round(roc(scores, genuine).far[roc(scores, genuine).index_at(k / 100)] * 100) for k in range(1, 101)
    ]
    assert accepted == list(range(1, 101))


def test_equal_error_rate_balances_both_errors() -> None:
    scores, genuine = noisy_scores(decimals=8)
    curve = roc(scores, genuine)
    threshold = curve.thresholds[np.argmin(np.abs(curve.far - (1 - curve.tar)))]
    assert curve.eer == pytest.approx(np.mean(scores[~genuine] >= threshold), abs=1e-3)
    assert curve.eer == pytest.approx(np.mean(scores[genuine] < threshold), abs=1e-3)
    assert roc(np.array([1.0, 0.0]), np.array([True, False])).eer == 0.0


@pytest.mark.parametrize("far", [0.1, 0.01])
def test_threshold_keeps_its_promise_and_no_lower_score_does(far: float) -> None:
    scores, genuine = noisy_scores()
    point = threshold_at_far(scores, genuine, far)
    impostor = scores[~genuine]
    assert np.mean(impostor >= point.threshold) <= far
    next_lower = np.max(scores[scores < point.threshold])
    assert np.mean(impostor >= next_lower) > far
    assert point.tar == np.mean(scores[genuine] >= point.threshold) == tar_at_far(scores, genuine, far)


def test_bootstrap_interval_is_that_of_resampling_the_pairs() -> None:
    scores, genuine = noisy_scores(800, 800)
    point = threshold_at_far(scores, genuine, 0.05, num_resamples=4000)
    rng, thresholds, tars = np.random.default_rng(1), [], []
    for _ in range(1500):
        impostor, own = rng.choice(scores[~genuine], 800), rng.choice(scores[genuine], 800)
        barred = np.sort(impostor)[::-1][40]  # 5 % of 800 may pass, this one may not
        thresholds.append(np.min(scores[scores > barred]))
        tars.append(np.mean(own > barred))
    assert [point.threshold_low, point.threshold_high] == pytest.approx(
        np.quantile(thresholds, [0.025, 0.975]), abs=0.004
    )
    assert [point.tar_low, point.tar_high] == pytest.approx(np.quantile(tars, [0.025, 0.975]), abs=0.006)


def test_bootstrap_is_repeatable_by_its_seed() -> None:
    scores, genuine = noisy_scores(500, 500)
    assert threshold_at_far(scores, genuine, 0.02, seed=4) == threshold_at_far(scores, genuine, 0.02, seed=4)
    assert threshold_at_far(scores, genuine, 0.02, seed=4) != threshold_at_far(scores, genuine, 0.02, seed=5)


def test_a_far_level_is_supported_from_ten_expected_false_accepts_on() -> None:
    scores, genuine = noisy_scores(50, 1000)
    assert [threshold_at_far(scores, genuine, far).supported for far in (0.1, 0.01, 0.009, 1e-4)] == [
        True,
        True,
        False,
        False,
    ]


def test_nothing_is_accepted_where_an_impostor_scores_highest() -> None:
    scores = np.concatenate([np.full(100, 0.9), [0.5, 0.1]])
    point = threshold_at_far(scores, scores == 0.5, 0.1)
    assert (point.threshold, point.tar) == (np.inf, 0.0)
    assert point.supported and not point.usable


def test_everything_is_accepted_at_far_one() -> None:
    scores, genuine = noisy_scores(100, 100)
    point = threshold_at_far(scores, genuine, 1.0)
    assert (point.threshold, point.threshold_low, point.tar) == (scores.min(), scores.min(), 1.0)


def test_a_million_pairs_are_judged_in_seconds() -> None:
    scores = np.random.default_rng(0).random(1_000_000, dtype=np.float32)
    start = time.perf_counter()
    threshold_at_far(scores, np.arange(1_000_000) % 50 == 0, 1e-4)
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: pair_accuracy(np.ones((9, 2)), np.ones(5, bool)),
            r"shape \(9, 2\) do not fit 5 pairs; .*\(10, D\)",
        ),
        (
            lambda: pair_accuracy(np.full((20, 2), np.nan), np.ones(10, bool)),
            "20 of 20 embeddings contain NaN",
        ),
        (
            lambda: pair_accuracy(np.ones((20, 2)), np.ones(10, bool), rule="lfw"),
            "unknown rule 'lfw'.*insightface",
        ),
        (
            lambda: pair_accuracy(np.ones((20, 2)), np.ones(10, bool), num_folds=11),
            "10 pairs do not make 11 folds",
        ),
        (
            lambda: pair_accuracy(np.ones((20, 2)), np.ones(10, bool), fold_ids=np.zeros(10)),
            "at least two folds",
        ),
        (
            lambda: pair_accuracy(np.ones((20, 2)), np.ones(10, bool), pca=3),
            "pca=3 .* width 2; choose 1 to 2",
        ),
        (lambda: roc(np.ones(3), np.ones(4, bool)), r"shape \(3,\) do not fit labels of shape \(4,\)"),
        (lambda: roc(np.ones(3), np.ones(3, bool)), "3 genuine and 0 impostor pairs"),
        (
            lambda: roc(np.array([1, np.inf]), np.array([True, False])),
            "1 of 2 scores contain NaN or infinity",
        ),
        (lambda: tar_at_far(np.arange(2), np.array([True, False]), 0.0), "rate 0.0 is out of range"),
        (
            lambda: tar_at_far(np.arange(2), np.array([True, False]), 0.1, "near"),
            "unknown rule 'near'.*nearest",
        ),
        (
            lambda: threshold_at_far(np.arange(2), np.array([True, False]), 0.1, confidence=95),
            "confidence 95",
        ),
    ],
)
def test_wrong_input_is_answered_in_a_sentence(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def sorted_pairs(num_pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that are told apart perfectly, all genuine ones first."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(num_pairs, 8))
    is_same = np.arange(num_pairs) < num_pairs // 2
    b = np.where(is_same[:, None], a + 0.05 * rng.normal(size=a.shape), 0.5 * rng.normal(size=a.shape) - a)
    return np.stack([a, b], axis=1).reshape(-1, 8), is_same


def test_val_rests_on_the_folds_that_have_genuine_pairs() -> None:
    embeddings, is_same = sorted_pairs(200)
    sorted_folds = pair_accuracy(embeddings, is_same, num_folds=10)
    mixed = pair_accuracy(embeddings, is_same, fold_ids=np.arange(200) % 10)
    assert sorted_folds.val == mixed.val == 1.0
    assert sorted_folds.val_std == 0.0


def test_val_and_far_are_not_there_where_no_fold_defines_them() -> None:
    embeddings, _ = sorted_pairs(20)
    assert pair_accuracy(embeddings, np.zeros(20, bool), num_folds=2).val is None
    assert pair_accuracy(embeddings, np.ones(20, bool), num_folds=2).far is None
