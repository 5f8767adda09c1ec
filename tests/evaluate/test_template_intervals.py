"""Intervals of IJB and MegaFace, against those of lists of all pairs."""

import numpy as np
import pytest

from facescale.evaluate.distractors import search_distractors
from facescale.evaluate.identification import search
from facescale.evaluate.identity_points import identity_point, search_intervals, split_pairs
from facescale.evaluate.intervals import mean_interval
from facescale.evaluate.metrics import roc
from facescale.evaluate.template_intervals import (
    distractor_intervals,
    mean_tpir_intervals,
    rank_intervals,
    tar_certainty,
)


def faces(people: int, images: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = np.repeat(np.arange(people), images)
    x = rng.normal(size=(people, 6))[ids] + 0.7 * rng.normal(size=(len(ids), 6))
    return x / np.linalg.norm(x, axis=1, keepdims=True), ids


def test_tar_has_the_interval_of_all_pairs_though_only_the_highest_are_kept() -> None:
    x, ids = faces(50, 4, 0)
    a, b = np.triu_indices(len(ids), 1)
    scores, same = np.einsum("nd,nd->n", x[a], x[b]), ids[a] == ids[b]
    curve = roc(scores, same)
    thresholds = {far: float(curve.thresholds[curve.index_at(far)]) for far in (0.1, 0.01, 1e-4)}
    found, moved = tar_certainty(scores, same, np.stack([ids[a], ids[b]]), thresholds)
    assert moved.keys() == found.keys()
    assert found.keys() == {"tar@far=0.1", "tar@far=0.01"}  # 1e-4 is two impostor pairs
    genuine, impostor = split_pairs(scores, same, ids[a], ids[b])
    for far in (0.1, 0.01):
        point = identity_point(genuine, impostor, far, thresholds[far], True)
        assert found[f"tar@far={far:g}"] == pytest.approx((point.tar_low, point.tar_high))
        assert point.tar_low < curve.tar_at(far) < point.tar_high
    assert tar_certainty(scores, same, np.stack([ids[a], ids[b]]), {1e-4: 0.9}) == ({}, {})


def test_ranks_are_intervals_of_people() -> None:
    rng = np.random.default_rng(0)
    person, rank = np.repeat(np.arange(30), 5), rng.integers(1, 9, 150)
    expected = mean_interval(rank <= 5, person, person)
    assert rank_intervals(rank, person, (5,)) == {"rank5": (expected.low, expected.high)}


def test_distractors_count_as_people_of_their_own() -> None:
    probes, people = faces(30, 4, 1)
    distractors, _ = faces(400, 1, 2)
    found = search_distractors(probes.astype(np.float32), people, distractors.astype(np.float32), (0.1, 0.01))
    ends = distractor_intervals(found, people, (1, 10))
    genuine_a, genuine_b = np.nonzero((people[:, None] == people) & ~np.eye(len(people), dtype=bool))
    scores = np.concatenate(
        [np.einsum("nd,nd->n", probes[genuine_a], probes[genuine_b]), (probes @ distractors.T).ravel()]
    ).astype(np.float32)
    same = np.arange(len(scores)) < len(genuine_a)
    a = np.concatenate([people[genuine_a], np.repeat(people, 400)])
    b = np.concatenate([people[genuine_b], np.tile(100 + np.arange(400), len(people))])
    genuine, impostor = split_pairs(scores, same, a, b)
    for far in (0.1, 0.01):
        threshold = float(np.nextafter(np.float32(found.thresholds[far]), np.float32(2)))
        point = identity_point(genuine, impostor, far, threshold, True)
        assert ends[f"tar@far={far:g}"] == pytest.approx((point.tar_low, point.tar_high), abs=2e-3)
        assert ends[f"tar@far={far:g}"][0] < found.tar[far] < ends[f"tar@far={far:g}"][1]
    assert ends["rank1"][0] < found.at_rank(1) < ends["rank1"][1] and "rank10" in ends


def test_the_mean_over_galleries_is_surer_than_each_of_them() -> None:
    x, ids = faces(120, 5, 3)
    first, probes = np.flatnonzero(np.arange(600) % 5 == 0), np.flatnonzero(np.arange(600) % 5)
    parts, people = [], []
    for half in (ids[first] < 60, ids[first] >= 60):
        rows = first[half]
        parts.append(search(x[rows], ids[rows], x[probes], ids[probes]))
        people.append(ids[rows])
    single = []
    for part, known in zip(parts, people, strict=True):
        (alone,) = mean_tpir_intervals([part], [known], ids[probes], 0.1).values()
        is_mated = np.isin(ids[probes], known)
        expected = search_intervals(part, 0.1, ids[probes][is_mated], ids[probes][~is_mated])
        assert alone == pytest.approx(expected["tpir@fpir=0.1"])
        single.append(alone[1] - alone[0])
    ((low, high),) = mean_tpir_intervals(parts, people, ids[probes], 0.1).values()
    assert low < np.mean([part.tpir_at(0.1) for part in parts]) < high and high - low < min(single)
