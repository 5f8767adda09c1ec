"""How good an aligned face is, and the limits below which it is dropped."""

from dataclasses import dataclass, fields

import numpy as np

from facescale.arrays import FloatArray, Pixels
from facescale.prepare.align import SIZE, TEMPLATE, similarity

# Why a face is dropped.
SMALL, BLURRED, DARK, BRIGHT = "face too small", "blurred", "too dark", "too bright"
PROFILE, UNSURE, DISTORTED = "turned away", "detector unsure", "landmarks do not fit a face"


@dataclass(frozen=True)
class Quality:
    """What was measured of a face.

    Attributes:
        face_px: pixels of the photo along the side of the aligned crop: 112 for a crop of 112 pixels that was
            neither enlarged nor reduced.
        sharpness: variance of the 4-neighbour Laplacian of the crop's grey values, inside of the face.
        brightness: mean grey value inside of the face, 0 to 255.
        turn: how far the tip of the nose lies to the side of the middle of eyes and mouth, in distances
            between the eyes on the template: 0 facing the camera, 0.3 to 0.5 in profile.
        misfit: root mean square distance of the landmarks from the template, pixels of a 112-pixel crop.
        score: the detector's, 0 to 1.
    """

    face_px: float
    sharpness: float
    brightness: float
    turn: float
    misfit: float
    score: float


@dataclass(frozen=True)
class Limits:
    """What a face must have to be kept; see `Quality` for the units.

    Attributes:
        min_face: least face_px.
        min_sharpness: least sharpness.
        min_brightness: least brightness.
        max_brightness: greatest brightness.
        max_turn: greatest turn.
        max_misfit: greatest misfit.
        min_score: least score.

    Raises:
        ValueError: a limit below 0, or limits that nothing can meet.
    """

    min_face: float = 40  # others by the extremes of LFW, CelebA and CFP crops, none of which fails
    min_sharpness: float = 10
    min_brightness: float = 25
    max_brightness: float = 235
    max_turn: float = 1
    max_misfit: float = 20
    min_score: float = 0.5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{field.name} = {value} must be 0 or more")
        if self.min_brightness > self.max_brightness:
            raise ValueError(
                f"min_brightness = {self.min_brightness:g} is above max_brightness ="
                f" {self.max_brightness:g}, so no face could be kept"
            )

    def problem(self, quality: Quality) -> str:
        """Why a face is dropped: the first limit that it fails; empty if it is kept."""
        checks = (
            (quality.score < self.min_score, UNSURE),
            (quality.misfit > self.max_misfit, DISTORTED),
            (quality.face_px < self.min_face, SMALL),
            (quality.turn > self.max_turn, PROFILE),
            (quality.brightness < self.min_brightness, DARK),
            (quality.brightness > self.max_brightness, BRIGHT),
            (quality.sharpness < self.min_sharpness, BLURRED),
        )
        return next((reason for fails, reason in checks if fails), "")


def measure(crop_HW3: Pixels, landmarks_52: FloatArray, score: float) -> Quality:
    """Measure an aligned crop.

    Args:
        crop_HW3: uint8 RGB (S, S, 3), as `facescale.prepare.align.align` gives it.
        landmarks_52: of the face in its photo.
        score: the detector's.
    """
    to_template = similarity(landmarks_52, TEMPLATE)
    placed_52 = np.asarray(landmarks_52, np.float64) @ to_template[:, :2].T + to_template[:, 2]
    grey_HW = _face_grey(crop_HW3)
    middle = placed_52[[0, 1, 3, 4], 0].mean()
    eyes = TEMPLATE[1, 0] - TEMPLATE[0, 0]
    return Quality(
        face_px=round(SIZE / float(np.hypot(*to_template[0, :2])), 2),
        sharpness=round(float(_laplacian(grey_HW).var()), 2),
        brightness=round(float(grey_HW.mean()), 2),
        turn=round(abs(float(placed_52[2, 0] - middle)) / eyes, 4),
        misfit=round(float(np.sqrt(((placed_52 - TEMPLATE) ** 2).sum(axis=1).mean())), 3),
        score=round(float(score), 4),
    )


def _face_grey(crop_HW3: Pixels) -> FloatArray:
    """Grey values of the middle of the crop, which the face fills (the border may be black)."""
    side = len(crop_HW3)
    inner = crop_HW3[side // 4 : side * 9 // 10, side // 5 : side * 4 // 5].astype(np.float64)
    grey: FloatArray = inner @ np.array([0.299, 0.587, 0.114])
    return grey


def _laplacian(grey_HW: FloatArray) -> FloatArray:
    around = grey_HW[:-2, 1:-1] + grey_HW[2:, 1:-1] + grey_HW[1:-1, :-2] + grey_HW[1:-1, 2:]
    result: FloatArray = around - 4 * grey_HW[1:-1, 1:-1]
    return result
