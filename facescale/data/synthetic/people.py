"""Who is on a synthetic photograph and how it was taken: plain numbers, derived from a hash of their keys."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from facescale.data.sampling.counter_rng import scrambled, uniform64

# Reed-Solomon code over the integers modulo RADIX: see `person`.
RADIX = 23
DIGITS = 8
CAPACITY = RADIX**DIGITS // 2  # identities in each of the two splits: 39 billion

# The main traits and their ranges. Lengths are in pixels of the aligned 112x112 template, positions count
# downwards from the tip of a middling nose, tones run along a palette of the renderer.
TRAITS: dict[str, tuple[float, float]] = {
    "face_width": (31.0, 42.0),  # half of it, at the cheekbones
    "jaw": (-0.6, 0.85),  # pointed ... square
    "chin": (31.0, 46.0),
    "skin": (0.0, 1.0),
    "hair_tone": (0.0, 1.0),
    "hairline": (-56.0, -36.0),
    "hair_volume": (1.0, 13.0),
    "hair_length": (-34.0, 56.0),
    "eye_gap": (14.5, 20.5),  # half of the distance between the pupils
    "eye_width": (5.2, 9.0),
    "eye_height": (2.0, 5.2),
    "eye_tilt": (-0.26, 0.26),  # radians
    "iris": (0.0, 1.0),
    "brow_height": (7.0, 13.5),  # above the pupil
    "brow_weight": (0.9, 3.4),
    "brow_tilt": (-0.3, 0.35),
    "nose_width": (4.5, 10.5),
    "nose_drop": (-5.0, 5.0),
    "mouth_width": (9.5, 18.5),
    "lip": (1.2, 5.2),
    "mouth_drop": (15.0, 24.0),
}
# Two polynomials of degree < DIGITS agree in at most DIGITS - 1 places.
MIN_DIFFERENT_TRAITS = len(TRAITS) - (DIGITS - 1)

_POWERS = np.array([[pow(x, k, RADIX) for x in range(len(TRAITS))] for k in range(DIGITS)], dtype=np.int64)
_HALF = RADIX ** (DIGITS // 2)
_PERSON, _PHOTO = 1, 2  # which stream a hash is for


class Draw:
    """Takes the numbers of a stream one after the other, in the shape that is asked for."""

    def __init__(self, *key: int, count: int) -> None:
        self._uniform = iter(uniform64(count, *key).tolist())

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * float(next(self._uniform))

    def normal(self, sigma: float) -> float:
        """Bell-shaped with standard deviation ``sigma``, never beyond three (a sum of uniforms)."""
        return 2.0 * sigma * (self.between(-0.5, 0.5) + self.between(-0.5, 0.5) + self.between(-0.5, 0.5))

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self.between(0.0, 1.0) < probability

    def whole(self, bound: int) -> int:
        """Uniform in 0 .. bound - 1."""
        return int(self.between(0.0, bound))


@dataclass(frozen=True, slots=True)
class Person:
    """What all photographs of one identity share; the first fields are TRAITS, in order."""

    face_width: float
    jaw: float
    chin: float
    skin: float
    hair_tone: float
    hairline: float
    hair_volume: float
    hair_length: float
    eye_gap: float
    eye_width: float
    eye_height: float
    eye_tilt: float
    iris: float
    brow_height: float
    brow_weight: float
    brow_tilt: float
    nose_width: float
    nose_drop: float
    mouth_width: float
    lip: float
    mouth_drop: float
    # Details, from a hash: they help to recognise a person, but two people may share them all.
    undertone: float
    parting: float
    curls: float
    hairline_arch: float
    age: float
    beard: int  # 0 none, 1 stubble, 2 moustache, 3 goatee, 4 full
    glasses_habit: float  # share of the photographs with glasses on
    glasses_round: bool
    glasses_tone: float
    glasses_size: float
    lip_tone: float
    freckles: int
    moles: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Photo:
    """What differs between two photographs of the same person."""

    key: int  # for textures
    yaw: float  # radians
    pitch: float
    roll: float
    shift: tuple[float, float]  # of the crop, template pixels
    zoom: float
    light: tuple[float, float, float]  # direction
    ambient: float
    tint: tuple[float, float, float]
    contrast: float
    brightness: float
    saturation: float
    blur: float  # reach, template pixels; below 1 there is none
    noise: float  # standard deviation in a picture of 112 pixels, 0..255
    smile: float
    mouth_open: float
    eyes_open: float
    gaze: float
    brow_raise: float
    hair_shift: float
    hair_swell: float
    hair_cut: float
    glasses: float  # compared with Person.glasses_habit
    shades: bool
    cover: tuple[float, float] | None  # half-plane in front of the face: angle, distance from the nose
    blob: tuple[float, float, float, float] | None  # ellipse in front of the face: x, y, half-axes


def person(seed: int, number: int) -> Person:
    """The person with this number, 0 <= number < 2 * CAPACITY (from CAPACITY on: the test split).

    No two numbers of one seed give the same person. The number is permuted within 0 .. RADIX**DIGITS - 1 by
    a Feistel network and written in base RADIX, a prime; the digits are the coefficients of a polynomial over
    the integers modulo RADIX, and trait j is the polynomial's value at j, spread evenly over the trait's
    range. Two different polynomials of degree < DIGITS agree in at most DIGITS - 1 places (the distance of
    a Reed-Solomon code), so any two people, of whichever splits, differ by at least one step, 1/22 of the
    range, in at least MIN_DIFFERENT_TRAITS = 14 of the 21 traits. People taken at random differ in 20, by a
    third of the range.

    Raises:
        ValueError: the number is out of range.
    """
    draw = Draw(_PERSON, seed, number, count=32)
    traits: dict[str, Any] = dict(zip(TRAITS, main_traits(seed, number), strict=True))
    freckles = draw.whole(14) if draw.chance(0.25) else 0
    return Person(
        **traits,
        undertone=draw.between(-1.0, 1.0),
        parting=draw.between(-0.35, 0.35),
        curls=draw.between(0.0, 1.0),
        hairline_arch=draw.between(2.0, 22.0),
        age=draw.between(-0.6, 1.0),
        beard=draw.whole(4) + 1 if draw.chance(0.35) else 0,
        glasses_habit=draw.between(0.75, 0.95) if draw.chance(0.3) else 0.04,
        glasses_round=draw.chance(0.5),
        glasses_tone=draw.between(0.0, 0.8),
        glasses_size=draw.between(0.9, 1.2),
        lip_tone=draw.between(0.0, 1.0),
        freckles=freckles,
        moles=tuple((draw.between(-24.0, 24.0), draw.between(-30.0, 30.0)) for _ in range(draw.whole(4))),
    )


def main_traits(seed: int, number: int) -> list[float]:
    """Values of TRAITS for this person, in order (`person` explains the construction).

    Raises:
        ValueError: the number is out of range.
    """
    if not 0 <= number < 2 * CAPACITY:
        raise ValueError(f"person {number} does not exist; numbers run from 0 to {2 * CAPACITY - 1}")
    high, low = divmod(number, _HALF)
    for step in range(4):
        high, low = low, (high + scrambled(scrambled(seed) + 4 * low + step)) % _HALF
    digits = np.empty(DIGITS, dtype=np.int64)
    for k in range(DIGITS // 2):
        high, digits[k] = divmod(high, RADIX)
        low, digits[k + DIGITS // 2] = divmod(low, RADIX)
    levels = ((digits @ _POWERS) % RADIX).tolist()
    ranges = TRAITS.values()
    return [low + (high - low) * n / (RADIX - 1) for n, (low, high) in zip(levels, ranges, strict=True)]


def photo(seed: int, number: int, shot: int, nuisance: float) -> Photo:
    """The circumstances of photograph ``shot`` of a person; ``nuisance`` 0 is a passport photograph."""
    draw = Draw(_PHOTO, seed, number, shot, count=96)
    n = nuisance
    cover = (draw.between(0.0, 6.2832), draw.between(26.0, 52.0))
    blob = (
        draw.between(8.0, 104.0),
        draw.between(8.0, 104.0),
        draw.between(4.0, 16.0),
        draw.between(4.0, 16.0),
    )

    def normal(sigma: float) -> float:
        return draw.normal(sigma * n)

    def gain(sigma: float) -> float:
        return max(0.2, 1.0 + normal(sigma))

    return Photo(
        key=draw.whole(2**30),
        yaw=max(-1.2, min(1.2, normal(0.32))),
        pitch=normal(0.16),
        roll=normal(0.085),
        shift=(normal(2.5), normal(2.5)),
        zoom=gain(0.05),
        light=(normal(1.0), normal(0.6) - 0.25, 1.0),
        ambient=max(0.2, 1.0 - n * draw.between(0.1, 0.8)),
        tint=(gain(0.15), gain(0.08), gain(0.18)),
        contrast=gain(0.22),
        brightness=gain(0.25),
        saturation=max(0.0, 1.0 - n * draw.between(0.0, 0.9)) if draw.chance(0.3) else 1.0,
        blur=n * draw.between(-1.2, 2.3),
        noise=n * draw.between(1.0, 7.0),
        smile=normal(0.9),
        mouth_open=max(0.0, normal(2.4)),
        eyes_open=max(0.05, 1.0 - (draw.between(0.5, 0.95) if draw.chance(0.07 * n) else abs(normal(0.15)))),
        gaze=normal(0.7),
        brow_raise=normal(0.7),
        hair_shift=normal(2.2),
        hair_swell=normal(2.6),
        hair_cut=normal(9.0),
        glasses=draw.between(0.0, 1.0),
        shades=draw.chance(0.03 * n),
        cover=cover if draw.chance(0.16 * n) else None,
        blob=blob if draw.chance(0.15 * n) else None,
    )
