"""Drawn protocols: balanced, without repetition, without people in two folds, the same every time."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facescale.evaluate.protocols.draw import make_pairs, most_pairs


def check(ids: np.ndarray, num_pairs: int, num_folds: int, seed: int = 0) -> None:
    drawn = make_pairs(ids, num_pairs, num_folds, seed)
    assert len(drawn.a) == len(drawn.b) == num_pairs
    assert ((ids[drawn.a] == ids[drawn.b]) == drawn.is_same).all()
    assert (drawn.a != drawn.b).all()
    assert (
        len({frozenset(pair) for pair in zip(drawn.a.tolist(), drawn.b.tolist(), strict=True)}) == num_pairs
    )
    for fold in range(num_folds):
        assert (
            drawn.is_same[drawn.fold == fold].sum() * 2
            == num_pairs // num_folds
            == (drawn.fold == fold).sum()
        )


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=40),
    folds=st.integers(2, 5),
    seed=st.integers(0, 9),
)
def test_drawn_pairs_are_balanced_and_different_however_images_are_spread(sizes, folds, seed) -> None:
    ids = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 7, sizes))
    genuine = sum(n * (n - 1) // 2 for n in sizes)
    impostors = (sum(sizes) ** 2 - sum(n * n for n in sizes)) // 2
    most = min(genuine, impostors) // folds
    assert most_pairs(ids, folds, 10**6) == max(most, 1) * 2 * folds
    if most:
        check(ids, most * 2 * folds, folds, seed)  # every last pair of the rarer kind
        check(ids, 2 * folds, folds, seed)
    with pytest.raises(
        ValueError, match=f"allow {genuine} genuine and {impostors} impostor pairs; (ask for|give more)"
    ):
        make_pairs(ids, (most + 1) * 2 * folds, folds, seed)


def test_no_person_is_in_two_folds() -> None:
    ids = np.repeat(np.arange(60), 5)
    drawn = make_pairs(ids, num_pairs=600, num_folds=10)
    people = [
        set(ids[np.concatenate([drawn.a, drawn.b])[np.tile(drawn.fold, 2) == fold]]) for fold in range(10)
    ]
    assert sum(map(len, people)) == len(set.union(*people))
    check(ids, 600, 10)


def test_no_more_pairs_are_wanted_than_are_of_use() -> None:
    assert most_pairs(np.repeat(np.arange(60), 5), 10, 600) == 600


def test_people_share_folds_where_there_are_too_few() -> None:
    check(np.repeat(np.arange(4), 30), 200, 10)


def test_a_person_with_very_many_images_does_not_dominate() -> None:
    ids = np.concatenate([np.zeros(2000, np.int64), np.repeat(np.arange(1, 200), 6)])
    drawn = make_pairs(ids, num_pairs=2000, num_folds=2)
    shown = ids[np.concatenate([drawn.a, drawn.b])]
    assert np.mean(shown == 0) < 0.02


def test_the_draw_follows_its_seed_alone() -> None:
    ids = np.repeat(np.arange(50), 4)
    first, again, other = (make_pairs(ids, 200, seed=seed) for seed in (1, 1, 2))
    assert all((x == y).all() for x, y in zip(first, again, strict=True))
    assert (first.a != other.a).any()


@pytest.mark.parametrize(("num_pairs", "num_folds"), [(0, 10), (15, 10), (10, 10), (100, 1)])
def test_numbers_that_do_not_divide_are_answered_in_a_sentence(num_pairs: int, num_folds: int) -> None:
    with pytest.raises(
        ValueError, match=f"{num_pairs} pairs do not make {num_folds} equal folds.*multiple of"
    ):
        make_pairs(np.repeat(np.arange(50), 4), num_pairs, num_folds)


def test_one_identity_allows_no_impostors() -> None:
    with pytest.raises(
        ValueError, match="1 identities allow 10 genuine and 0 impostor pairs; give more images"
    ):
        make_pairs(np.zeros(5, np.int64), 4, 2)


@pytest.mark.parametrize(
    ("sizes", "num_pairs", "num_folds", "advice"),
    [
        ([3, 3], 6000, 10, "ask for 12 pairs in 6 folds"),
        ([2, 2, 2, 2, 2], 20, 10, "ask for 10 pairs in 5 folds"),
        ([6, 6], 6000, 10, r"ask for 60 \(--num-pairs\) or fewer"),
        ([2, 1], 4, 2, "give more images"),
    ],
)
def test_advice_can_be_followed(sizes: list[int], num_pairs: int, num_folds: int, advice: str) -> None:
    ids = np.repeat(np.arange(len(sizes)), sizes)
    with pytest.raises(ValueError, match=advice) as error:
        make_pairs(ids, num_pairs, num_folds)
    numbers = [int(number) for number in re.findall(r"\d+", str(error.value).rpartition(";")[2])]
    if numbers:
        assert len(make_pairs(ids, *numbers).a) == numbers[0]
