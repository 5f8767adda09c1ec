"""Every pair of a set, counted in blocks, against the ROC of all scores written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facescale.evaluate import all_pairs
from facescale.evaluate.all_pairs import verify_all_pairs
from facescale.evaluate.metrics import roc


def embeddings(people: int, images: int, noise: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.repeat(np.arange(people), images))
    x = rng.standard_normal((people, 8))[ids] + noise * rng.standard_normal((len(ids), 8))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), ids


@settings(max_examples=25, deadline=None)
@given(st.integers(3, 30), st.integers(2, 6), st.floats(0.1, 2), st.integers(0, 99), st.integers(3, 50))
def test_tar_is_that_of_the_exact_roc(people: int, images: int, noise: float, seed: int, block: int) -> None:
    x_ND, ids = embeddings(people, images, noise, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(all_pairs, "BLOCK", block)
        patch.setattr(all_pairs, "MIN_FALSE_ACCEPTS", 1)
        found = verify_all_pairs(x_ND, ids, (0.1, 0.01, 0.5))
    a, b = np.triu_indices(len(ids), 1)
    scores, same = (
        np.einsum("nd,nd->n", x_ND[a].astype(np.float64), x_ND[b].astype(np.float64)),
        ids[a] == ids[b],
    )
    curve = roc(scores, same)
    assert (found.num_genuine, found.num_impostor) == (curve.num_genuine, curve.num_impostor)
    for far, tar in found.tar.items():
        assert tar == pytest.approx(curve.tar_at(far), abs=1.01 / curve.num_genuine)  # float32 may swap two
        assert np.mean(scores[~same] > found.thresholds[far] + 1e-6) <= far


def test_rates_that_the_set_does_not_support_are_named() -> None:
    found = verify_all_pairs(*embeddings(10, 4, 0.5, 0), (0.1, 1e-6))
    assert found.unsupported == (1e-6,) and list(found.tar) == [0.1]


@pytest.mark.parametrize("ids", [[0, 1, 2], [0, 0, 0]])
def test_a_set_with_one_kind_of_pairs_is_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match=r"3 images of . people make . genuine and . impostor pairs; both"):
        verify_all_pairs(np.eye(3, dtype=np.float32), np.array(ids), (0.1,))
