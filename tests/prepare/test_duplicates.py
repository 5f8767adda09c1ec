import numpy as np

from facescale.prepare.duplicates import (
    CONFLICT,
    REPEATED,
    exact_duplicates,
    near_pairs,
    pairs_between,
    thin_out,
)


def test_the_first_of_equal_files_stays_and_those_under_several_identities_go() -> None:
    digests = {"a/1": "x", "a/2": "x", "a/3": "y", "b/1": "z", "c/1": "z", "c/2": "z"}
    gone = exact_duplicates(digests, {key: key[0] for key in digests})
    assert gone == {
        "a/2": (REPEATED, "a/1"),
        "b/1": (CONFLICT, "c/1"),
        "c/1": (CONFLICT, "b/1"),
        "c/2": (CONFLICT, "b/1"),
    }


def test_near_pairs_are_those_of_all_cosines_whatever_the_block() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    expected = [(i, j) for i in range(50) for j in range(i + 1, 50) if vectors[i] @ vectors[j] >= 0.9]
    assert len(expected) > 5
    for block in (1, 7, 50, 64):
        first, second = near_pairs(vectors, 0.9, block)
        assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected


def test_the_best_of_a_neighbourhood_stays() -> None:
    # 0 - 1 - 2 is a chain, 3 - 4 a pair of equals
    first, second = np.array([0, 1, 3]), np.array([1, 2, 4])
    assert thin_out(first, second, [(1.0,), (5.0,), (2.0,), (3.0,), (3.0,)]) == {0: 1, 2: 1, 4: 3}
    assert thin_out(first, second, [(2.0,), (1.0,), (2.0,), (1.0,), (9.0,)]) == {1: 0, 3: 4}


def test_of_too_many_pairs_the_nearest_stay() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = vectors @ vectors.T
    first, second = near_pairs(vectors, -1.0, block=8, most=15)
    nearest = np.sort(cosine[np.triu_indices(40, 1)])[-15:]
    assert np.allclose(np.sort(cosine[first, second]), nearest)


def test_pairs_between_two_sets() -> None:
    one, other = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[[2, 0]]
    first, second = pairs_between(one, other, 0.5, block=2)
    assert list(zip(first.tolist(), second.tolist(), strict=True)) == [(0, 1), (2, 0)]
