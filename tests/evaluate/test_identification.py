"""One-to-many search and templates, on examples whose answer can be worked out."""

import numpy as np
import pytest

from facescale.evaluate import identification, ijb
from facescale.evaluate.identification import (
    MeanIdentification,
    distractor_rank1,
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
        figures = [*pooled_recall(gallery, ids, probes, ids, 0.1), distractor_rank1(probes, ids, gallery)]
        return [found.rank_M, found.other_U, curve.far, curve.tar, np.array(figures)]

    whole = results()
    monkeypatch.setattr(identification, "CHUNK", 7)
    for cut, uncut in zip(results(), whole, strict=True):
        np.testing.assert_allclose(cut, uncut, rtol=1e-12)


def test_distractors_bar_a_pair_only_above_it() -> None:
    probes, ids = unit(0, 10, 90), np.array([1, 1, 2])
    assert distractor_rank1(probes, ids, unit(15)) == 0.5  # 10 degrees to the mate; distractor 15 and 5 away
    assert distractor_rank1(probes, ids, unit(180)) == 1.0


def test_templates_average_frames_and_add_media() -> None:
    features = np.array([[1, 0], [3, 0], [0, 2], [5, 5]], np.float32)
    built = ijb.build_templates(features, np.array([7, 7, 7, 2]), np.array([1, 1, 4, 1]))
    assert built.ids.tolist() == [2, 7]
    np.testing.assert_allclose(built.unit_TD, unit(45, 45))  # (1 + 3) / 2 in one medium, 2 in the other
    weighed = ijb.build_templates(
        features, np.array([7, 7, 7, 2]), np.array([1, 1, 4, 1]), np.array([1, 1, 0, 1])
    )
    np.testing.assert_allclose(weighed.unit_TD[1], [1, 0])


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
            lambda: distractor_rank1(PROBES, np.arange(5), GALLERY),
            "each of the 5 probes has a different identity",
        ),
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
