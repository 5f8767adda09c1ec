"""Paint a person under the circumstances of a photograph, part by part, from the back to the front.

Lengths are in pixels of the ArcFace template; the origin of the head is the tip of a middling nose, y
points down, z out of the face. A part is a smooth function, about the distance in pixels inside its edge,
on the part's own coordinates. Suffix hw: rows and columns of the part's rectangle.
"""

import cmath
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from facescale.data.synthetic.canvas import (
    Array,
    Canvas,
    Colour,
    Patch,
    background,
    dim,
    ellipse_edge,
    expose,
    grain,
    tone,
)
from facescale.data.synthetic.people import Draw, Person, Photo

# Where an aligner puts eyes, nose tip and mouth corners.
_TEMPLATE = (
    38.2946 + 51.6963j,
    73.5318 + 51.5014j,
    56.0252 + 71.7366j,
    41.5493 + 92.3655j,
    70.7299 + 92.2041j,
)
_EYES_Y, _EYES_Z = -20.0, 8.0
_BEARD_STUBBLE, _BEARD_MOUSTACHE, _BEARD_GOATEE = 1, 2, 3

_SKIN = ((1.0, 0.87, 0.78), (0.94, 0.75, 0.61), (0.78, 0.57, 0.42), (0.55, 0.37, 0.25), (0.31, 0.2, 0.14))
_HAIR = (
    (0.06, 0.05, 0.06), (0.2, 0.12, 0.1), (0.4, 0.2, 0.1), (0.6, 0.26, 0.1), (0.8, 0.6, 0.3), (0.7, 0.7, 0.7)
)  # fmt: skip
_IRIS = ((0.16, 0.09, 0.05), (0.4, 0.24, 0.1), (0.33, 0.42, 0.2), (0.3, 0.5, 0.68), (0.6, 0.66, 0.7))


class Pose(NamedTuple):
    """Where points of the head fall in the picture: a rotation in depth, then the alignment of the crop."""

    yaw_cos: float
    yaw_sin: float
    pitch_cos: float
    pitch_sin: float
    axis: complex
    origin: complex

    def at(self, x: float, y: float, z: float) -> complex:
        """Picture position of a point of the head."""
        turned = x * self.yaw_cos + z * self.yaw_sin
        depth = z * self.yaw_cos - x * self.yaw_sin
        return complex(turned, y * self.pitch_cos + depth * self.pitch_sin) * self.axis + self.origin

    def squeeze(self, x: float) -> float:
        """How much narrower than from the front the surface at ``x`` looks (the head is round)."""
        sine = x / 52.0
        return max(0.25, self.yaw_cos - self.yaw_sin * sine / math.sqrt(1.0 - sine * sine))


def render(who: Person, shot: Photo, size: int) -> npt.NDArray[np.uint8]:
    """The photograph as RGB uint8 (size, size, 3), aligned to the ArcFace template."""
    canvas = Canvas(background(size, shot.key))
    pose = aligned_pose(who, shot)
    red, green, blue = tone(_SKIN, who.skin)
    skin = (red, green * (1.0 - 0.05 * who.undertone), blue * (1.0 - 0.12 * who.undertone))
    hair = tone(_HAIR, who.hair_tone)
    _hair(canvas, pose, who, shot, hair)
    _neck_and_ears(canvas, pose, who, shot, skin)
    head, outline_hw = _head(canvas, pose, who, shot, skin)
    _lines(canvas, pose, who, skin)
    _marks(canvas, pose, who, skin)
    if who.beard:
        _beard(canvas, pose, who, head, outline_hw, hair)
    _nose(canvas, pose, who, skin)
    _mouth(canvas, pose, who, shot, skin)
    for side in (-1.0, 1.0):
        _eye(canvas, pose, who, shot, skin, side)
        _brow(canvas, pose, who, shot, hair, side)
    if shot.shades or shot.glasses < who.glasses_habit:
        _glasses(canvas, pose, who, shot.shades)
    _occlude(canvas, shot)
    return expose(canvas.planes_CHW, shot)


def aligned_pose(who: Person, shot: Photo) -> Pose:
    """Turn the head, then fit its landmarks to the template by least squares, as an aligner does, roughly."""
    turned = Pose(
        math.cos(shot.yaw), math.sin(shot.yaw), math.cos(shot.pitch), math.sin(shot.pitch), 1.0, 0.0
    )
    corner = 0.85 * who.mouth_width
    marks = (
        turned.at(-who.eye_gap, _EYES_Y, _EYES_Z),
        turned.at(who.eye_gap, _EYES_Y, _EYES_Z),
        turned.at(0.0, who.nose_drop, 20.0),
        turned.at(-corner, who.mouth_drop, 10.0),
        turned.at(corner, who.mouth_drop, 10.0),
    )
    middle, target = sum(marks) / 5, sum(_TEMPLATE) / 5
    cross = sum((m - middle).conjugate() * (t - target) for m, t in zip(marks, _TEMPLATE, strict=True))
    axis = cross / sum(abs(m - middle) ** 2 for m in marks) * cmath.rect(shot.zoom, shot.roll)
    return turned._replace(axis=axis, origin=target - axis * middle + complex(*shot.shift))


def _hair(canvas: Canvas, pose: Pose, who: Person, shot: Photo, hair: Colour) -> None:
    """The hair behind and around the face, with strands; the face comes over it."""
    half = who.face_width + max(0.5, who.hair_volume + shot.hair_swell)
    length = who.hair_length + shot.hair_cut
    patch = canvas.patch(pose.at(0.0, -10.0, -14.0), pose.axis, (half, 110.0))
    x_hw = patch.x_hw * (1.0 / half)
    top_hw = np.minimum(patch.y_hw, 0.0) * (1.0 / (50.0 + who.hair_volume))
    edge_hw = np.minimum((1.0 - x_hw * x_hw - top_hw * top_hw) * (half * 0.5), length + 10.0 - patch.y_hw)
    noise_hw = grain(shot.key, *edge_hw.shape)[0]
    strands_hw = noise_hw[:1] * (0.16 * (1.0 - who.curls)) + noise_hw * (0.22 * who.curls) + 1.0
    canvas.paint(patch, edge_hw, np.array(hair, dtype=np.float32)[:, None, None] * strands_hw)


def _neck_and_ears(canvas: Canvas, pose: Pose, who: Person, shot: Photo, skin: Colour) -> None:
    """What is seen of the skin around the face; long hair hides the ears."""
    half = who.face_width
    neck = canvas.patch(pose.at(0.0, who.chin + 10.0, -16.0), pose.axis, (half * 0.62, 26.0))
    canvas.paint(neck, half * 0.6 - np.abs(neck.x_hw), dim(skin, 0.72))
    if who.hair_length + shot.hair_cut < 8.0:
        for side in (-1.0, 1.0):
            canvas.ellipse(pose.at(side * (half + 1.5), -8.0, -16.0), pose.axis, (4.5, 9.0), dim(skin, 0.88))


def _head(canvas: Canvas, pose: Pose, who: Person, shot: Photo, skin: Colour) -> tuple[Patch, Array]:
    """The bare face below the hairline; returns its coordinates and its outline."""
    half, low, high = who.face_width, who.chin + 14.0, 50.0
    head = canvas.patch(pose.at(0.0, -14.0, -4.0), pose.axis, (half, max(low, high)))
    x_hw = head.x_hw * (1.0 / half)
    x2_hw = x_hw * x_hw
    y2_hw = head.y_hw * np.where(head.y_hw > 0.0, np.float32(1.0 / low), np.float32(1.0 / high))
    y2_hw *= y2_hw
    jaw_hw = np.where(head.y_hw > 0.0, np.float32(who.jaw), np.float32(0.0))
    outline_hw = (1.0 - x2_hw - y2_hw * (1.0 + jaw_hw * (y2_hw * y2_hw - 1.0))) * (half * 0.5)
    line_hw = (
        x2_hw * who.hairline_arch + x_hw * (20.0 * who.parting) + (who.hairline + 14.0 + shot.hair_shift)
    )
    canvas.paint(head, np.minimum(outline_hw, head.y_hw - line_hw), skin)
    return head, outline_hw


def _lines(canvas: Canvas, pose: Pose, who: Person, skin: Colour) -> None:
    """Furrows on the forehead and folds beside the mouth, from middle age on."""
    if who.age <= 0.0:
        return
    brow = canvas.patch(pose.at(0.0, -37.0, 6.0), pose.axis, (16.0, 6.0))
    fade_hw = np.maximum(ellipse_edge(brow, 16.0, 7.0), 0.0) * np.maximum(np.cos(brow.y_hw * 1.5), 0.0)
    canvas.shade(brow, fade_hw * (0.08 * who.age))
    for side in (-1.0, 1.0):
        at = pose.at(side * (who.nose_width + 4.5), who.mouth_drop - 6.0, 9.0)
        fold = canvas.patch(at, pose.axis * complex(1.0, -0.35 * side), (2.0, 8.0))
        edge_hw = 0.7 - np.abs(fold.x_hw) - np.maximum(np.abs(fold.y_hw) - 6.0, 0.0)
        canvas.paint(fold, edge_hw, dim(skin, 0.6), 0.7 * who.age)


def _marks(canvas: Canvas, pose: Pose, who: Person, skin: Colour) -> None:
    """Moles and freckles, fixed on the face."""
    for x, y in who.moles:
        canvas.ellipse(pose.at(x, y, 10.0), pose.axis, (1.5, 1.5), dim(skin, 0.35))
    for k in range(who.freckles):
        x = (7.0 + 2.1 * (k * 5 % 7)) * (1.0 if k % 2 else -1.0)
        canvas.ellipse(pose.at(x, -9.0 + 2.6 * (k * 3 % 5), 10.0), pose.axis, (1.2, 1.2), dim(skin, 0.66))


def _beard(canvas: Canvas, pose: Pose, who: Person, head: Patch, outline_hw: Array, hair: Colour) -> None:
    """Stubble, moustache, goatee with moustache, or full beard."""
    width, drop = who.mouth_width, who.mouth_drop
    if who.beard != _BEARD_STUBBLE:
        lip = canvas.patch(pose.at(0.0, drop - 2.0, 11.0), pose.axis, (width + 1.0, 6.0), pose.yaw_cos)
        bent_hw = lip.y_hw - lip.x_hw * lip.x_hw * (3.0 / width**2) + 2.2
        canvas.paint(lip, np.minimum(2.6 - np.abs(bent_hw), width - np.abs(lip.x_hw)), hair, 0.9)
    if who.beard == _BEARD_GOATEE:
        half = (who.chin - drop) * 0.5
        canvas.ellipse(pose.at(0.0, drop + half, 10.0), pose.axis, (0.75 * width, half + 2.0), hair, 0.9)
    elif who.beard != _BEARD_MOUSTACHE:
        cut_hw = head.y_hw + head.x_hw * head.x_hw * 0.018 - (drop + 14.0 + 0.8 * who.lip)
        canvas.paint(head, np.minimum(outline_hw, cut_hw), hair, 0.4 if who.beard == _BEARD_STUBBLE else 0.9)


def _nose(canvas: Canvas, pose: Pose, who: Person, skin: Colour) -> None:
    """Sides, wings, tip and nostrils; the tip stands out most, so it moves most when the head turns."""
    root, tip = pose.at(0.0, _EYES_Y, _EYES_Z), pose.at(0.0, who.nose_drop, 20.0)
    reach = abs(tip - root) / abs(pose.axis) * 0.5 + 2.0
    half = who.nose_width * 0.45
    down = (tip - root) / abs(tip - root) * abs(pose.axis)
    ridge = canvas.patch((root + tip) / 2.0, down / 1j, (half * 2.0, reach))
    side_hw = np.maximum(1.0 - np.abs(np.abs(ridge.x_hw) - half) * (1.0 / half), 0.0)
    canvas.shade(ridge, side_hw * np.clip(ridge.y_hw * (0.11 / reach) + 0.11, 0.0, 0.22))
    base = canvas.patch(tip, pose.axis, (who.nose_width, 4.6), pose.yaw_cos)
    canvas.paint(base, ellipse_edge(base, who.nose_width, 4.6), dim(skin, 0.86), 0.8)
    shine = base._replace(y_hw=base.y_hw + 1.2)
    canvas.paint(base, ellipse_edge(shine, half, 3.0), dim(skin, 1.06), 0.8)
    nostrils = base._replace(x_hw=np.abs(base.x_hw) - who.nose_width * 0.5, y_hw=base.y_hw - 2.8)
    canvas.paint(base, ellipse_edge(nostrils, who.nose_width * 0.24, 1.3), dim(skin, 0.3))


def _mouth(canvas: Canvas, pose: Pose, who: Person, shot: Photo, skin: Colour) -> None:
    """Lips, and what is seen between them."""
    half, lip = who.mouth_width * (1.0 + 0.05 * shot.smile), who.lip
    reach = (half, 2.2 * lip + shot.mouth_open + 4.0)
    patch = canvas.patch(pose.at(0.0, who.mouth_drop, 11.0), pose.axis, reach, pose.yaw_cos)
    x2_hw = patch.x_hw * patch.x_hw * (1.0 / half**2)
    arch_hw = 1.0 - x2_hw
    y_hw = patch.y_hw + x2_hw * (1.8 * shot.smile)
    gap_hw = arch_hw * shot.mouth_open
    depth = 0.35 + 0.4 * who.lip_tone
    red = (skin[0] * (1.02 - 0.25 * depth), skin[1] * (0.95 - 0.5 * depth), skin[2] * (0.95 - 0.42 * depth))
    canvas.paint(patch, np.minimum(y_hw + arch_hw * lip, gap_hw + arch_hw * (1.25 * lip) - y_hw), red)
    inside_hw = np.minimum(y_hw, gap_hw - y_hw) + 0.45 - np.maximum(x2_hw - 0.9, 0.0) * 9.0
    canvas.paint(patch, inside_hw, (0.2, 0.06, 0.06))
    if shot.mouth_open > 2.0:
        canvas.paint(patch, np.minimum(y_hw, 0.55 * gap_hw - y_hw - 0.3), (0.93, 0.9, 0.85))


def _eye(canvas: Canvas, pose: Pose, who: Person, shot: Photo, skin: Colour, side: float) -> None:
    """Socket, white, iris, pupil, upper lid."""
    half, height = who.eye_width, who.eye_height
    axis = pose.axis * cmath.rect(1.0, -side * who.eye_tilt)
    at, squeeze = pose.at(side * who.eye_gap, _EYES_Y, _EYES_Z), pose.squeeze(side * who.eye_gap)
    patch = canvas.patch(at, axis, (half + 1.5, height + 4.0), squeeze)
    canvas.paint(patch, ellipse_edge(patch, half + 1.5, height + 3.5), dim(skin, 0.8), 0.6)
    arch_hw = 1.0 - patch.x_hw * patch.x_hw * (1.0 / half**2)
    lid_hw = patch.y_hw + arch_hw * (height * shot.eyes_open)
    inside_hw = np.minimum(lid_hw, arch_hw * (0.75 * height) - patch.y_hw)
    canvas.paint(patch, inside_hw, (0.95, 0.93, 0.92))
    radius = 1.6 + 0.3 * half
    dx_hw = patch.x_hw - shot.gaze
    disc_hw = dx_hw * dx_hw + patch.y_hw * patch.y_hw
    canvas.paint(patch, np.minimum(inside_hw, (radius**2 - disc_hw) * (0.5 / radius)), tone(_IRIS, who.iris))
    canvas.paint(
        patch, np.minimum(inside_hw, (0.2 * radius**2 - disc_hw) * (1.1 / radius)), (0.03, 0.03, 0.03)
    )
    canvas.paint(patch, np.minimum(0.75 - np.abs(lid_hw), arch_hw * half), (0.1, 0.07, 0.06))


def _brow(canvas: Canvas, pose: Pose, who: Person, shot: Photo, hair: Colour, side: float) -> None:
    """A bent bar above the eye, darker than the hair."""
    half = who.eye_width + 2.0
    at = pose.at(side * (who.eye_gap + 0.5), _EYES_Y - who.brow_height - shot.brow_raise, _EYES_Z)
    axis = pose.axis * cmath.rect(1.0, -side * who.brow_tilt)
    patch = canvas.patch(at, axis, (half, who.brow_weight + 4.0), pose.squeeze(side * who.eye_gap))
    x2_hw = patch.x_hw * patch.x_hw * (1.0 / half**2)
    edge_hw = (1.1 - x2_hw) * who.brow_weight - np.abs(patch.y_hw - x2_hw * 2.2)
    canvas.paint(patch, edge_hw, dim(hair, 0.7), 0.9)


def _glasses(canvas: Canvas, pose: Pose, who: Person, dark: bool) -> None:
    """Two rims and a bridge; dark lenses hide the eyes."""
    half, height = 13.0 * who.glasses_size, (11.0 if who.glasses_round else 9.0) * who.glasses_size
    rim = dim((1.0, 0.7, 0.5), who.glasses_tone)
    for side in (-1.0, 1.0):
        at = pose.at(side * 18.0, _EYES_Y + 1.5, 12.0)
        patch = canvas.patch(at, pose.axis, (half + 2.0, height + 2.0), pose.squeeze(side * 18.0))
        x2_hw, y2_hw = (patch.x_hw * (1.0 / half)) ** 2, (patch.y_hw * (1.0 / height)) ** 2
        if who.glasses_round:
            edge_hw = (1.0 - x2_hw - y2_hw) * (height / 2.0)
        else:
            edge_hw = (1.0 - x2_hw * x2_hw - y2_hw * y2_hw) * (height / 4.0)
        if dark:
            canvas.paint(patch, edge_hw, (0.05, 0.05, 0.07), 0.93)
        canvas.paint(patch, 0.9 - np.abs(edge_hw), rim)
    canvas.ellipse(pose.at(0.0, _EYES_Y, 14.0), pose.axis, (max(18.5 - half, 1.5), 1.1), rim)


def _occlude(canvas: Canvas, shot: Photo) -> None:
    """Something in front of the face: the straight edge of a hat, scarf or frame, or a thing."""
    draw = Draw(shot.key, count=6)
    colours = [(draw.between(0.0, 1.0), draw.between(0.0, 1.0), draw.between(0.0, 1.0)) for _ in range(2)]
    if shot.cover is not None:
        angle, distance = shot.cover
        half_plane = canvas.patch(56.0 + 66.0j, cmath.rect(1.0, angle), (150.0, 150.0))
        canvas.paint(half_plane, half_plane.x_hw - distance, colours[0])
    if shot.blob is not None:
        x, y, half_x, half_y = shot.blob
        canvas.ellipse(complex(x, y), 1.0, (half_x, half_y), colours[1])
