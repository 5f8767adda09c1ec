"""Faces of raw photos are found for the gallery."""

import numpy as np
import pytest

from facescale.gallery import photos
from facescale.gallery.photos import aligned_of_any_size, aligned_only, face_finder, find_face
from facescale.prepare.align import TEMPLATE
from facescale.prepare.detect import Face

PHOTO = np.random.default_rng(0).integers(0, 255, (330, 410, 3), dtype=np.uint8)


def at(*corners: tuple[int, int], scale: float = 1.0):  # type: ignore[no-untyped-def]
    """A detector that sees a face of 112 times ``scale`` pixels at each corner, at any size."""

    def detect(photo_HW3: np.ndarray) -> list[Face]:
        shown = photo_HW3.shape[1] / PHOTO.shape[1]  # the photo may be shown at another size
        return [
            Face(
                (x * shown, y * shown, (x + 112 * scale) * shown, (y + 112 * scale) * shown),
                (TEMPLATE * scale + (x, y)) * shown,
                0.9,
            )
            for x, y in corners
        ]

    return detect


def test_the_face_of_a_raw_photo_is_aligned() -> None:
    found = find_face(at((60, 40)))(PHOTO, 112)
    assert np.abs(found.pixels.astype(int) - PHOTO[40:152, 60:172]).max() <= 1
    assert found.quality == pytest.approx(0.9) and found.note == ""
    assert find_face(at((60, 40)))(PHOTO, 56).pixels.shape == (56, 56, 3)


def test_several_faces_are_noted_and_a_small_one_has_a_lower_quality() -> None:
    assert find_face(at((60, 40), (200, 90)))(PHOTO, 112).note == "the largest of 2 faces"
    assert find_face(at((60, 40), scale=0.25))(PHOTO, 112).quality == pytest.approx(
        0.9 * 0.25 * 35.24 / 35, rel=0.01
    )


@pytest.mark.parametrize("side", [112, 56])
def test_an_aligned_face_is_taken_as_it_is(side: int) -> None:
    aligned = np.full((side, side, 3), 77, np.uint8)
    found = find_face(at())(aligned, 56)
    assert (found.pixels == 77).all() and found.quality == 1


def test_a_square_photo_is_an_aligned_face_for_a_model_that_resizes() -> None:
    assert aligned_of_any_size(np.full((250, 250, 3), 9, np.uint8), 112).pixels.shape == (112, 112, 3)
    with pytest.raises(ValueError, match="it is 410x330 pixels and not an aligned face"):
        aligned_of_any_size(PHOTO, 112)


def test_a_photo_without_a_face_is_a_sentence() -> None:
    with pytest.raises(ValueError, match="no face was found in the photo of 410x330 pixels"):
        find_face(at())(PHOTO, 112)


def test_the_detector_is_used_where_one_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise ValueError("none")

    monkeypatch.setattr(photos, "available_detector", none)
    assert face_finder() is aligned_only
    with pytest.raises(
        ValueError, match=r"align it first, or have faces found: pip install 'facescale\[detect\]'"
    ):
        face_finder()(PHOTO, 112)
    monkeypatch.setattr(photos, "available_detector", lambda: "yuface")
    monkeypatch.setattr(photos, "build_detector", lambda name: at((60, 40)))
    assert face_finder()(PHOTO, 112).quality == pytest.approx(0.9)
