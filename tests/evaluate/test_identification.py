"""One-to-many search and templates, on examples whose answer can be worked out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facescale.evaluate import identification, ijb
from facescale.evaluate.identification import (
    MeanIdentification,
    pooled_recall,
    search,
    search_histogram,
)


def unit(*degrees: float) -> np.ndarray:
    """Points on the unit circle: the similarity of two is the cosine of the angle between them."""
    return np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], axis=1)


GALLERY, GALLERY_IDS = unit(0, 90, 180), np.array([1, 2, 3])
# Person 1 looks like itself, person 2 like 1 before itself; 8 and 9 are not in the gallery.
PROBES, PROBE_IDS = unit(10, 40, 178, 91, 200), np.array([1, 2, 3, 8, 9])


def test_search_ranks_mates_and_scores_strangers() -> None:
    found = search(GALLERY, GALLERY_IDS, PROBES, PROBE_IDS)
    assert found.rank_M.tolist() == [1, 2, 1]
    np.testing.assert_allclose(found.mate_M, np.cos(np.radians([10, 50, 2])))
    np.testing.assert_allclose(found.other_U, np.cos(np.radians([1, 20])))
    assert [found.at_rank(k) for k in (1, 2)] == [pytest.approx(2 / 3), 1.0]


def test_open_set_rate_asks_for_rank_one_above_the_strangers() -> None:
    found = search(GALLERY, GALLERY_IDS, PROBES, PROBE_IDS)
    assert found.threshold_at(0.5) == pytest.approx(np.cos(np.radians(1)))
    assert found.tpir_at(0.5) == 0.0
    assert found.threshold_at(1.0) == pytest.approx(np.cos(np.radians(20)))
    assert found.tpir_at(1.0) == pytest.approx(2 / 3)  # the mate of 2 is below the threshold and second


def test_an_equal_entry_of_somebody_else_is_not_beaten() -> None:
    found = search(unit(0, 0), np.array([1, 2]), unit(5), np.array([1]))
    assert found.rank_M.tolist() == [2]


def test_best_of_several_entries_of_a_person_counts_and_the_others_do_not_stand_before_it() -> None:
    found = search(unit(80, 0, 10), np.array([1, 1, 2]), unit(1), np.array([1]))
    assert (found.rank_M.tolist(), found.mate_M[0]) == ([1], pytest.approx(np.cos(np.radians(1))))


def test_mean_of_galleries_pools_ranks_and_averages_rates() -> None:
    one = search(GALLERY, GALLERY_IDS, PROBES, PROBE_IDS)
    other = search(unit(91), np.array([8]), PROBES, PROBE_IDS)
    both = MeanIdentification([one, other])
    assert both.at_rank(1) == pytest.approx(3 / 4)
    assert both.tpir_at(1.0) == pytest.approx((2 / 3 + 1) / 2)


def test_results_do_not_depend_on_how_probes_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    gallery, probes = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.normal(size=(2, 60, 5)))
    ids = np.arange(60) % 20

    def results() -> list[np.ndarray]:
        found = search(gallery, ids, probes, ids + 3)
        curve = search_histogram(gallery, ids, probes, ids, num_bins=50)
        figures = pooled_recall(gallery, ids, probes, ids, 0.1)
        return [found.rank_M, found.other_U, curve.far, curve.tar, np.array(figures)]

    whole = results()
    monkeypatch.setattr(identification, "PROBES", 7)
    monkeypatch.setattr(identification, "GALLERY", 11)
    monkeypatch.setattr(identification, "PAIRS", 2)
    for cut, uncut in zip(results(), whole, strict=True):
        np.testing.assert_allclose(cut, uncut, rtol=1e-12)


def slow_search(gallery: np.ndarray, gallery_ids: np.ndarray, probes: np.ndarray, ids: np.ndarray):
    """Ranks of mated probes and highest scores of the others, one probe at a time."""
    ranks, others = [], []
    for probe, person in zip(probes, ids, strict=True):
        sim = [float(np.dot(probe.astype(np.float64), entry)) for entry in gallery.astype(np.float64)]
        own = [s for s, entry in zip(sim, gallery_ids, strict=True) if entry == person]
        if own:
            ranks.append(1 + sum(s >= max(own) for s, e in zip(sim, gallery_ids, strict=True) if e != person))
        else:
            others.append(max(sim))
    return ranks, others


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    gallery=st.integers(1, 40),
    probes=st.integers(1, 12),
    people=st.integers(1, 9),
    width=st.integers(1, 5),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_blocked_search_equals_one_probe_after_the_other(
    seed: int, gallery: int, probes: int, people: int, width: int, dtype: type
) -> None:
    """With few directions, many entries are equal: ties count against the mate in every block."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(4, width))
    directions = (directions / np.linalg.norm(directions, axis=1, keepdims=True)).astype(dtype)
    g, p = (directions[rng.integers(4, size=n)] for n in (gallery, probes))
    g_ids, p_ids = (rng.integers(people, size=n) for n in (gallery, probes))
    ranks, others = slow_search(g, g_ids, p, p_ids)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identification, "PROBES", 5)
        patch.setattr(identification, "GALLERY", 7)
        if not ranks:
            with pytest.raises(ValueError, match="of a person in the gallery"):
                search(g, g_ids, p, p_ids)
            return
        found = search(g, g_ids, p, p_ids)
    assert found.rank_M.tolist() == ranks
    np.testing.assert_allclose(found.other_U, others, atol=1e-6)


def test_templates_average_frames_and_add_media() -> None:
    features = np.array([[1, 0], [3, 0], [0, 2], [5, 5]], np.float32)
    built = ijb.build_templates(features, np.array([7, 7, 7, 2]), np.array([1, 1, 4, 1]))
    assert built.ids.tolist() == [2, 7]
    np.testing.assert_allclose(built.unit_TD, unit(45, 45))  # (1 + 3) / 2 in one medium, 2 in the other
    weighed = ijb.build_templates(
        features, np.array([7, 7, 7, 2]), np.array([1, 1, 4, 1]), np.array([1, 1, 0, 1])
    )
    np.testing.assert_allclose(weighed.unit_TD[1], [1, 0])


def test_pairs_of_templates_are_scored_alike_by_blocks_and_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    x, a, b = rng.normal(size=(50, 7)), rng.integers(40, size=300), rng.integers(10, 50, size=300)
    expected = [x[i] @ x[j] for i, j in zip(a, b, strict=True)]
    monkeypatch.setattr(ijb, "CHUNK", 11)
    monkeypatch.setattr(ijb, "LEFT", 7)
    for dense in (10**6, 0):
        monkeypatch.setattr(ijb, "DENSE", dense)
        np.testing.assert_allclose(ijb.pair_scores(x, a, b), expected, rtol=1e-12)
    assert len(ijb.pair_scores(x, a[:0], b[:0])) == 0


def test_templates_do_not_depend_on_how_images_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, templates, medias = rng.normal(size=(60, 2, 5)), rng.integers(9, size=60), rng.integers(4, size=60)
    score = rng.random(60)
    expected = []
    for template in np.unique(templates):  # as the released scripts do it: means of media, then their sum
        own = templates == template
        means = [
            (x[own & (medias == m)].sum(axis=1) * score[own & (medias == m), None]).mean(axis=0)
            for m in np.unique(medias[own])
        ]
        expected.append(np.sum(means, axis=0) / np.linalg.norm(np.sum(means, axis=0)))
    for images in (1, 7, 1000):
        monkeypatch.setattr(ijb, "IMAGES", images)
        built = ijb.build_templates(x, templates, medias, score)
        np.testing.assert_allclose(built.unit_TD, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: search(GALLERY, GALLERY_IDS[:2], PROBES, PROBE_IDS),
            "3 gallery and 5 probe features do not fit 2 and 5",
        ),
        (
            lambda: search(GALLERY, GALLERY_IDS, PROBES, PROBE_IDS + 9),
            "none of the 5 probes is of a person in the gallery",
        ),
        (
            lambda: search(GALLERY, GALLERY_IDS, PROBES[:3], PROBE_IDS[:3]).tpir_at(0.1),
            "no threshold at FPIR 0.1 from 0 non-mated probes",
        ),
        (lambda: search(GALLERY, GALLERY_IDS, PROBES, PROBE_IDS).threshold_at(0), "FPIR 0 from 2 non-mated"),
        (
            lambda: ijb.build_templates(GALLERY, np.zeros(2), np.zeros(3)),
            r"shape \(3, 2\) do not fit 2 templates, 3 media",
        ),
        (
            lambda: ijb.build_templates(GALLERY * np.nan, np.zeros(3), np.zeros(3)),
            "3 of 3 features contain NaN",
        ),
        (
            lambda: ijb.build_templates(GALLERY, GALLERY_IDS, GALLERY_IDS).rows(np.array([1, 5, 0])),
            "2 templates have no image, the first is 0",
        ),
    ],
)
def test_wrong_input_is_answered_in_a_sentence(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
