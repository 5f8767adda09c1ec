"""A small float picture that soft-edged parts are painted on, and the camera that turns it into 8 bits.

Positions are complex numbers x + iy in pixels of the 112x112 ArcFace template, whatever the size of the
picture. Shape suffixes: C colour, H and W rows and columns of the picture, h and w those of one part's
rectangle, G grid points.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from facescale.arrays import Pixels
from facescale.data.sampling.counter_rng import uniform64
from facescale.data.synthetic.people import Draw, Photo

Array = npt.NDArray[np.floating]  # float32 in fact: a Python float beside a float32 array leaves it so
Colour = tuple[float, float, float]

_TEMPLATE_SIDE = 112.0
_LIGHT_POINTS = 12  # light is smooth: computed on so many points a side, then spread
_GRAIN_SIDE = 384
_GRAIN = 3  # its stream


class Patch(NamedTuple):
    """A rectangle of the picture with a part's own coordinates in it: x_hw along the part, y_hw across."""

    rows: slice
    columns: slice
    x_hw: Array
    y_hw: Array


class Canvas:
    """A float32 picture, one plane a colour, 0..1.

    Only the rectangle around a part is touched when the part is painted, which makes small parts cheap.
    """

    def __init__(self, planes_CHW: Array) -> None:
        self.planes_CHW = planes_CHW
        self.size = planes_CHW.shape[1]
        self._scale = self.size / _TEMPLATE_SIDE
        self._ticks = (np.arange(self.size, dtype=np.float32) + 0.5) / self._scale - 0.5

    def patch(self, centre: complex, axis: complex, half: tuple[float, float], squeeze: float = 1.0) -> Patch:
        """The rectangle around a part that reaches ``half`` along and across ``axis`` from its centre.

        ``squeeze`` shortens the part along its axis (a cheek that turns away).
        """
        along, across = half[0] * squeeze, half[1]
        rows = self._span(centre.imag, abs(axis.imag) * along + abs(axis.real) * across)
        columns = self._span(centre.real, abs(axis.real) * along + abs(axis.imag) * across)
        dx_w = self._ticks[columns] - centre.real
        dy_h1 = self._ticks[rows, None] - centre.imag
        inverse = 1.0 / axis
        x_hw = dx_w * (inverse.real / squeeze) - dy_h1 * (inverse.imag / squeeze)
        return Patch(rows, columns, x_hw, dx_w * inverse.imag + dy_h1 * inverse.real)

    def _span(self, middle: float, reach: float) -> slice:
        """Pixels that lie within ``reach`` of ``middle``, and one more."""
        first = int((middle - reach - 0.5) * self._scale)
        last = int((middle + reach + 1.5) * self._scale) + 1
        return slice(min(max(first, 0), self.size), min(max(last, 0), self.size))

    def paint(self, patch: Patch, edge_hw: Array, colour: Colour | Array, opacity: float = 1.0) -> None:
        """Cover the patch where ``edge_hw``, pixels inside the part's edge, is positive, with a ramp at 0."""
        cover_hw = edge_hw + 0.5
        np.maximum(cover_hw, 0.0, out=cover_hw)
        np.minimum(cover_hw, 1.0, out=cover_hw)
        if opacity != 1.0:
            cover_hw *= opacity
        ink = np.array(colour, dtype=np.float32)[:, None, None] if isinstance(colour, tuple) else colour
        region_Chw = self.planes_CHW[:, patch.rows, patch.columns]
        change_Chw = ink - region_Chw
        change_Chw *= cover_hw
        region_Chw += change_Chw

    def shade(self, patch: Patch, share_hw: Array) -> None:
        """Darken the patch by a share, 0 none .. 1 black."""
        self.planes_CHW[:, patch.rows, patch.columns] *= 1.0 - share_hw

    def ellipse(
        self, centre: complex, axis: complex, half: tuple[float, float], colour: Colour, opacity: float = 1.0
    ) -> None:
        """Paint a filled ellipse with these half-axes."""
        patch = self.patch(centre, axis, half)
        self.paint(patch, ellipse_edge(patch, *half), colour, opacity)


def ellipse_edge(patch: Patch, half_x: float, half_y: float) -> Array:
    """About the distance (h, w) inside the edge of an ellipse, pixels."""
    x_hw, y_hw = patch.x_hw * (1.0 / half_x), patch.y_hw * (1.0 / half_y)
    x_hw *= x_hw
    y_hw *= y_hw
    x_hw += y_hw
    return (1.0 - x_hw) * (0.5 * min(half_x, half_y))


def tone(palette: tuple[Colour, ...], position: float) -> Colour:
    """The colour at 0 <= position <= 1 along a palette."""
    place = position * (len(palette) - 1)
    step = min(int(place), len(palette) - 2)
    (a, b, c), (d, e, f), t = palette[step], palette[step + 1], place - step
    return (a + (d - a) * t, b + (e - b) * t, c + (f - c) * t)


def dim(colour: Colour, gain: float) -> Colour:
    """A darker or brighter colour."""
    return (colour[0] * gain, colour[1] * gain, colour[2] * gain)


def grain(key: int, rows: int, columns: int) -> Array:
    """Normal noise (3, rows, columns), at most 256 a side: a window, chosen by ``key``, of one fixed tile."""
    y, x = key % (_GRAIN_SIDE - 256), key // 128 % (_GRAIN_SIDE - 256)
    return _grain_tile()[:, y : y + rows, x : x + columns]


@functools.cache
def _grain_tile() -> Array:
    # Drawing fresh numbers for each picture would take longer than painting it. A sum of four uniforms is
    # normal enough. (Freeing these large arrays has a side effect worth 20 % of the speed: from then on,
    # glibc's malloc keeps the pages of smaller ones.)
    shape = 4, 3, _GRAIN_SIDE, _GRAIN_SIDE
    tile = uniform64(math.prod(shape), _GRAIN).reshape(shape).sum(axis=0)
    return np.asarray((tile - 2.0) * math.sqrt(3.0), dtype=np.float32)


@functools.cache
def _spreader(size: int, points: int) -> Array:
    """Matrix (size, points) that interpolates linearly between values on an even grid."""
    place = np.linspace(0.0, points - 1.0, size)
    return np.maximum(0.0, 1.0 - np.abs(place[:, None] - np.arange(points))).astype(np.float32)


def background(size: int, key: int) -> Array:
    """A blurred scene (3, size, size): patches of light and dark, weakly coloured."""
    draw = Draw(key, count=3)
    points = 3 + draw.whole(6)
    noise_CGG = grain(key, points, points)
    grey_GG, level, colour = noise_CGG[0], draw.between(0.15, 0.8), draw.between(0.03, 0.2)
    scene_CGG = np.clip(level + 0.22 * grey_GG + colour * noise_CGG, 0.0, 1.0)
    spread_HG = _spreader(size, points)
    return np.asarray(spread_HG @ scene_CGG @ spread_HG.T)


def expose(planes_CHW: Array, shot: Photo) -> Pixels:
    """Take the picture, in place: light, saturation, tint, contrast, blur, noise; RGB uint8 (H, W, 3)."""
    size = planes_CHW.shape[1]
    scale = size / _TEMPLATE_SIDE  # a smaller picture is a shrunk one: sharper, and its noise averaged
    out_HWC = np.empty((size, size, 3), dtype=np.uint8)
    light_HW = _light(size, shot)
    if shot.saturation < 1.0:
        grey_HW = (planes_CHW[0] * 0.3 + planes_CHW[1] * 0.6 + planes_CHW[2] * 0.1) * (1.0 - shot.saturation)
    grain_CHW = grain(shot.key, size, size)
    # One plane at a time, so that what is in between stays in the cache.
    for c, tint in enumerate(shot.tint):
        plane_HW = planes_CHW[c]
        if shot.saturation < 1.0:
            plane_HW *= shot.saturation
            plane_HW += grey_HW
        plane_HW *= light_HW
        plane_HW *= 255.0 * shot.brightness * shot.contrast * tint
        plane_HW += 115.0 * shot.brightness * (1.0 - shot.contrast)
        for step in range(1, int(shot.blur * scale) + 1):
            _soften(plane_HW, step)
        plane_HW += grain_CHW[c] * (shot.noise * scale)
        np.maximum(plane_HW, 0.0, out=plane_HW)
        np.minimum(plane_HW, 255.0, out=plane_HW)
        out_HWC[:, :, c] = plane_HW
    return out_HWC


def _light(size: int, shot: Photo) -> Array:
    """Brightness (size, size) of a head-like ellipsoid under ambient light and a lamp (Lambert's cosine)."""
    grid_G = np.linspace(-1.0, 1.0, _LIGHT_POINTS, dtype=np.float32)
    x_G, y_G1 = 0.95 * grid_G, 0.8 * grid_G[:, None]
    z_GG = np.sqrt(np.maximum(1.0 - x_G * x_G - y_G1 * y_G1, 0.05))
    x, y, z = shot.light
    strength = 1.15 * (1.0 - shot.ambient) / math.sqrt(x * x + y * y + z * z)
    lamp_GG = np.maximum(x_G * (x * strength) + y_G1 * (y * strength) + z_GG * (z * strength), 0.0)
    spread_HG = _spreader(size, _LIGHT_POINTS)
    return np.asarray(spread_HG @ (lamp_GG + shot.ambient) @ spread_HG.T)


def _soften(plane_HW: Array, step: int) -> None:
    """Blur in place by the kernel 1 2 1, ``step`` pixels between its taps, both ways; the rim stays sharp."""
    wide = plane_HW[:-step] + plane_HW[step:]
    wide = wide[:-step] + wide[step:]
    wide = wide[:, :-step] + wide[:, step:]
    wide = wide[:, :-step] + wide[:, step:]
    np.multiply(wide, 1.0 / 16.0, out=plane_HW[step:-step, step:-step])
