from dataclasses import replace

import numpy as np
import pytest

from facescale.prepare.align import TEMPLATE
from facescale.prepare.quality import (
    BLURRED,
    BRIGHT,
    DARK,
    DISTORTED,
    PROFILE,
    SMALL,
    UNSURE,
    Limits,
    Quality,
    measure,
)

GOOD = Quality(face_px=112, sharpness=200, brightness=128, turn=0.05, misfit=3, score=0.9)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({}, ""),
        ({"face_px": 39}, SMALL),
        ({"sharpness": 9}, BLURRED),
        ({"brightness": 24}, DARK),
        ({"brightness": 236}, BRIGHT),
        ({"turn": 0.3}, PROFILE),
        ({"misfit": 21}, DISTORTED),
        ({"score": 0.4}, UNSURE),
    ],
)
def test_each_limit_drops_what_fails_it(changed: dict[str, float], reason: str) -> None:
    assert Limits(max_turn=0.2).problem(replace(GOOD, **changed)) == reason


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="min_face = -1 must be 0 or more"):
        Limits(min_face=-1)
    with pytest.raises(ValueError, match="max_turn = nan must be 0 or more"):
        Limits(max_turn=float("nan"))
    with pytest.raises(ValueError, match="min_brightness = 200 is above max_brightness = 100"):
        Limits(min_brightness=200, max_brightness=100)


def test_the_measures_are_what_they_say(make_picture) -> None:
    crop = make_picture(1, 112)
    found = measure(crop, TEMPLATE * 3 + 7, 0.75)
    assert found.face_px == pytest.approx(336, abs=0.01)
    assert found.misfit == pytest.approx(0, abs=1e-6)
    assert found.score == 0.75
    inner = crop[28:100, 22:89].astype(float) @ [0.299, 0.587, 0.114]
    assert found.brightness == pytest.approx(inner.mean(), abs=0.01)
    noisy = np.random.default_rng(0).integers(0, 256, crop.shape).astype(np.uint8)
    assert measure(noisy, TEMPLATE, 1).sharpness > 1000 > found.sharpness
    assert measure(np.full_like(crop, 7), TEMPLATE, 1).sharpness == 0


def test_turn_grows_with_the_offset_of_the_nose_to_either_side() -> None:
    def turned(by: float) -> float:
        points = TEMPLATE.copy()
        points[2, 0] += by
        return measure(np.zeros((112, 112, 3), np.uint8), points, 1).turn

    assert turned(0) < 0.01 < turned(6) < turned(12)
    assert turned(12) == pytest.approx(turned(-12), abs=0.01)
