"""Alignment to the ArcFace template: the transform, the pixels, and what cannot be aligned."""

import numpy as np
import pytest

from facescale.prepare.align import TEMPLATE, align, similarity, template


def rotated(points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = np.deg2rad(degrees)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return points @ matrix.T + shift


@pytest.mark.parametrize("degrees", [0, 30, -170])
@pytest.mark.parametrize("scale", [0.3, 1, 5])
def test_a_known_similarity_is_found_again(degrees: float, scale: float) -> None:
    source = rotated(TEMPLATE, degrees, scale, (200.0, -30.0))
    found = similarity(source, TEMPLATE)
    np.testing.assert_allclose(source @ found[:, :2].T + found[:, 2], TEMPLATE, atol=1e-9)


def test_the_transform_is_that_of_least_squares() -> None:
    """Against the linear system that it solves: x' = a x - b y + c, y' = b x + a y + d."""
    source = TEMPLATE + np.random.default_rng(0).normal(0, 3, (5, 2))
    x, y = source.T
    one, zero = np.ones(5), np.zeros(5)
    system = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    (a, b, c, d), *_ = np.linalg.lstsq(system, TEMPLATE.T.ravel(), rcond=None)
    np.testing.assert_allclose(similarity(source, TEMPLATE), [[a, -b, c], [b, a, d]], atol=1e-9)


def test_mirrored_landmarks_are_not_mirrored_back() -> None:
    found = similarity(TEMPLATE * [-1, 1], TEMPLATE)
    assert np.linalg.det(found[:, :2]) > 0


def scene(side: int) -> np.ndarray:
    """A smooth picture."""
    y, x = np.mgrid[0:side, 0:side] / side
    waves = [128 + 100 * np.sin(5 * x + k) * np.cos(4 * y - k) for k in range(3)]
    return np.stack(waves, axis=-1).round().astype(np.uint8)


def test_an_aligned_face_stays_as_it_is() -> None:
    face = scene(112)
    assert np.array_equal(align(face, TEMPLATE), face)


@pytest.mark.parametrize("scale", [1.5, 4, 11.3])
def test_a_scaled_and_moved_face_comes_back(scale: float) -> None:
    side = int(112 * scale * 1.5)
    photo = scene(side)
    points = (TEMPLATE + 0.5) * scale - 0.5 + [10, 20]
    got = align(photo, points).astype(float)
    x = (np.arange(112) + 0.5) * scale - 0.5
    expected = photo[np.ix_(np.rint(x + 20).astype(int), np.rint(x + 10).astype(int))].astype(float)
    assert np.abs(got - expected).mean() < 1.5


def test_beyond_the_photo_it_is_black() -> None:
    photo = np.full((112, 112, 3), 200, np.uint8)
    got = align(photo, TEMPLATE - [40, 0])
    assert (got[:, :38] == 0).all() and (got[:, 41:] == 200).all()


def test_another_size_has_the_template_of_that_size() -> None:
    np.testing.assert_allclose(template(224), 2 * TEMPLATE)
    assert align(scene(300), TEMPLATE, 224).shape == (224, 224, 3)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 2)), "all landmarks lie on one spot"),
        (np.full((5, 2), np.nan), "landmarks are not finite"),
        (np.zeros((4, 2)), r"landmarks have shape \(4, 2\), the template \(5, 2\)"),
    ],
)
def test_landmarks_that_cannot_be_aligned_are_one_sentence(points: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        align(scene(50), points)
