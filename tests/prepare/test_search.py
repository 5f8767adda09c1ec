"""facescale.prepare.search: where in a photo a detector is made to look."""

import numpy as np
import pytest

from facescale.prepare.detect import Face
from facescale.prepare.search import find_faces


class Marker:
    """Finds the white square of a view, if its side is within limits, as a detector finds a face."""

    def __init__(self, least: float, most: float, needs_margin: bool = False) -> None:
        self.least, self.most, self.needs_margin = least, most, needs_margin
        self.sides: list[int] = []

    def __call__(self, photo_HW3: np.ndarray) -> list[Face]:
        self.sides.append(max(photo_HW3.shape[:2]))
        y, x = np.nonzero(photo_HW3[..., 0] > 127)
        if not (len(x) and self.least <= np.ptp(x) + 1 <= self.most):
            return []
        if self.needs_margin and x.min() == 0:
            return []
        box = (float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1))
        return [Face(box, np.full((5, 2), [(x.min() + x.max()) / 2, (y.min() + y.max()) / 2]), 0.9)]


def photo(height: int, width: int, left: int, top: int, side: int) -> np.ndarray:
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top : top + side, left : left + side] = 255
    return pixels


@pytest.mark.parametrize(
    ("pixels", "detector", "views"),
    [
        (photo(400, 500, 100, 50, 200), Marker(20, 300), 1),
        (photo(1500, 2000, 900, 600, 70), Marker(30, 300), 2),  # 22 pixels wide at 640, 34 at 960
        (photo(112, 112, 0, 0, 112), Marker(20, 300, needs_margin=True), 2),  # a tight crop
        (photo(1200, 1600, 100, 100, 1000), Marker(40, 60), 4),  # a face that fills a large photo
    ],
)
def test_faces_are_looked_for_at_several_sizes_and_come_back_in_pixels_of_the_photo(
    pixels: np.ndarray, detector: Marker, views: int
) -> None:
    (found,) = find_faces(detector, pixels)
    y, x = np.nonzero(pixels[..., 0])
    assert len(detector.sides) == views
    step = max(pixels.shape) / 80  # a pixel of the smallest view
    assert np.allclose(found.box, (x.min(), y.min(), x.max() + 1, y.max() + 1), atol=1.5 * step)
    assert np.allclose(found.landmarks_52, [(x.min() + x.max()) / 2, (y.min() + y.max()) / 2], atol=step)


class Upright:
    """Finds two bars, and is sure where the white one is on top; the landmarks are the middle of that."""

    upright_score = 0.9

    def __call__(self, photo_HW3: np.ndarray) -> list[Face]:
        grey = photo_HW3[..., 0].astype(int)
        (y, x), (rows, columns) = np.nonzero(grey > 200), np.nonzero(grey)
        if not len(y):
            return []
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        is_upright = y.min() == rows.min() and np.ptp(x) > np.ptp(y)
        return [
            Face(tuple(map(float, box)), np.full((5, 2), [x.mean(), y.mean()]), 0.95 if is_upright else 0.6)
        ]


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_photo_on_its_side_or_its_head_is_turned_for_the_search(turns: int) -> None:
    upright = np.zeros((500, 640, 3), np.uint8)
    upright[100:140, 300:420], upright[140:180, 300:420] = 255, 110
    pixels = np.rot90(upright, turns)
    (found,) = find_faces(Upright(), pixels)
    assert found.score == 0.95
    y, x = np.nonzero(pixels[..., 0])
    assert np.allclose(found.box, (x.min(), y.min(), x.max() + 1, y.max() + 1), atol=2)
    y, x = np.nonzero(pixels[..., 0] == 255)
    assert np.allclose(found.landmarks_52, [x.mean(), y.mean()], atol=1)


def test_a_photo_without_a_face_has_none() -> None:
    assert find_faces(Marker(1, 1000), np.zeros((50, 60, 3), np.uint8)) == []


def test_no_detector_is_shown_more_than_it_is_made_for() -> None:
    detector = Marker(10**6, 10**7)
    find_faces(detector, np.zeros((3000, 200, 3), np.uint8))
    assert max(detector.sides) == 960
