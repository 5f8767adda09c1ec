"""facescale.clean.metric: what varies within identities counts less."""

import numpy as np

from facescale.clean.centres import robust_centres
from facescale.clean.metric import within_class_metric
from facescale.evaluate.rows import unit_rows


def test_people_are_told_apart_better_after_it() -> None:
    draw = np.random.default_rng(0)
    ids = np.repeat(np.arange(40), 10)
    noise = draw.normal(size=(len(ids), 16)) * np.where(
        np.arange(16) < 8, 0.3, 2.0
    )  # loud in half the directions
    unit = unit_rows(draw.normal(size=(40, 16))[ids] + noise).astype(np.float32)

    def rank1(rows: np.ndarray) -> float:
        found = robust_centres(rows, ids)
        other = rows @ found.unit_CD.T
        other[np.arange(len(ids)), ids] = -2
        return float(np.mean(found.own_N > other.max(axis=1)))

    metric = within_class_metric(unit, ids)
    assert rank1(metric.apply(unit)) > rank1(unit) + 0.2


def test_a_few_images_leave_rows_of_length_one() -> None:
    unit = unit_rows(np.random.default_rng(0).normal(size=(3, 8))).astype(np.float32)
    rows = within_class_metric(unit, np.array([0, 0, 1])).apply(unit)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_the_centre_is_not_moved_by_wrong_labels() -> None:
    draw = np.random.default_rng(0)
    right = unit_rows(np.array([1.0, 0, 0, 0]) + 0.1 * draw.normal(size=(9, 4)))
    strangers = unit_rows(np.array([[0, 1.0, 0, 0], [0, 0, 1.0, 0]]))
    rows = np.concatenate([right, strangers]).astype(np.float32)
    found = robust_centres(rows, np.zeros(len(rows), np.int64))
    plain = unit_rows(rows.mean(axis=0, keepdims=True))[0]
    assert found.unit_CD[0, 0] > 0.99 > plain[0]
    assert found.own_N[:9].min() > 0.9 and found.own_N[9:].max() < 0.3
