"""Search a photo of any size for faces: in several sizes, with a margin, and turned."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image

from facescale.arrays import Pixels
from facescale.prepare.detect import Detector, Face

_SIDE = 640  # pixels of the longer side of the photo that a detector is shown first
_MIN_SIDE = 320  # detectors give whole pixels, so smaller photos are enlarged
_MAX_SIDE = 960  # yuface is not made for more
_CLEARLY = 0.02  # a turned photo's face must be so much stronger


def find_faces(detector: Detector, photo_HW3: Pixels) -> list[Face]:
    """The faces of a photo of any size, the strongest first.

    The photo is shown at 640 pixels; where no face is found, at 960 (small faces), with a margin (crops
    that a face fills) and at 160 (faces that fill a large photo). A detector whose scores tell upright faces
    (`YuFace`) is also shown the photo turned by quarters where it is not sure of any face: some photos lie on
    their side without telling so, and what it takes for landmarks there is wrong.
    """
    height, width, _ = photo_HW3.shape
    best = _found(detector, _upright(photo_HW3), height, width)
    sure: float = getattr(detector, "upright_score", 0.0)
    if _top(best) < sure:
        for turns in (1, 3, 2):
            turned = _found(
                detector, iter([_view(photo_HW3, _first_side(photo_HW3), 0, turns)]), height, width
            )
            if _top(turned) > _top(best) + _CLEARLY:
                best = turned
    return sorted(best, key=lambda face: (-face.score, face.box))


def _found(detector: Detector, views: "Iterable[_View]", height: int, width: int) -> list[Face]:
    """The faces of the first view that shows any."""
    for view in views:
        if faces := detector(view.pixels_HW3):
            return [_moved_back(face, view, height, width) for face in faces]
    return []


def _top(faces: list[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


class _View(NamedTuple):
    """A photo as a detector sees it.

    Attributes:
        pixels_HW3: what is shown.
        scale: of the photo in it.
        margin: around the photo, in its pixels.
        turns: quarters that the photo was turned counter-clockwise before that.
    """

    pixels_HW3: Pixels
    scale: float
    margin: int
    turns: int


def _first_side(photo_HW3: Pixels) -> int:
    side: int = max(photo_HW3.shape[:2])
    return min(max(side, _MIN_SIDE), _SIDE)


def _upright(photo_HW3: Pixels) -> Iterator[_View]:
    side, first = max(photo_HW3.shape[:2]), _first_side(photo_HW3)
    yield _view(photo_HW3, first, 0)
    if side > first:
        yield _view(photo_HW3, min(side, _MAX_SIDE), 0)
    yield _view(photo_HW3, first, side // 2)
    yield _view(photo_HW3, _SIDE // 4, side // 2)


def _view(photo_HW3: Pixels, side: int, margin: int, turns: int = 0) -> _View:
    """The photo, turned and with a black margin, so that its longer side has ``side`` pixels."""
    picture = Image.fromarray(np.ascontiguousarray(np.rot90(photo_HW3, turns)))
    width, height = picture.size
    scale = side / (max(height, width) + 2 * margin)
    if margin:
        inner, picture = picture, Image.new("RGB", (width + 2 * margin, height + 2 * margin))
        picture.paste(inner, (margin, margin))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    if size != picture.size:
        picture = picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return _View(np.asarray(picture), scale, margin, turns)


def _moved_back(face: Face, view: _View, height: int, width: int) -> Face:
    """A face of a view in pixels of the photo, which has ``height`` x ``width`` of them."""
    box_22 = np.array(face.box).reshape(2, 2) / view.scale - view.margin
    # Landmarks are centres of pixels, boxes are edges.
    points_52 = (face.landmarks_52 + 0.5) / view.scale - view.margin
    for turn in range(view.turns, 0, -1):  # before the last turn, the photo was as wide as the view is high
        wide = width if turn % 2 else height
        box_22, points_52 = (np.stack([wide - xy[:, 1], xy[:, 0]], axis=1) for xy in (box_22, points_52))
    (left, top), (right, bottom) = box_22.min(axis=0).tolist(), box_22.max(axis=0).tolist()
    return Face((left, top, right, bottom), points_52 - 0.5, face.score)
