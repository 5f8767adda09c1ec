"""Whether two crops show one photo: brought onto each other, their fine structure agrees.

An embedding says how alike two faces are, not whether they come from one photo: two frames of one session may
be closer than a photo and a cropped copy. So pairs that an embedding proposes are compared by their
pixels. The second image is moved onto the first by an affine transform (Baker and Matthews, "Lucas-Kanade
20 years on", IJCV 2004, inverse compositional algorithm), which undoes a crop, a shift or another scale;
then wrinkles, hair and shadows are correlated. Different photos of a person agree in what is coarse, and
differ there.

Shapes: P pairs, S side of the small grey images.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from facescale.arrays import FloatArray, IntArray
from facescale.data.images import Images
from facescale.data.loading.decode import decode, resized
from facescale.data.readers.base import BadRecordError

_SIDES = (24, 48)  # coarse to fine
_STEPS = (8, 6)  # of the registration, per side
_MOST_MOVED = 0.35  # of the half side: shift, and change of scale, beyond which nothing is compared
_LEAST_SHARED = 0.5  # fraction of the first image that the second one covers
_NOISE = 2.0  # grey values that saving changes in a small image
_COARSE_SAME = 0.85  # correlation of the coarse images below which they are different photos
SAME = 0.85  # correlation of the fine structure from which two crops show one photo
_BATCH = 256  # pairs compared at once: 50 MB
_GREY = np.array([0.299, 0.587, 0.114], np.float32)

Floats = npt.NDArray[np.float32]


def agreement(images: Images, first_P: IntArray, second_P: IntArray) -> FloatArray:
    """Correlation of the fine structure of each pair, (P,), at most 1; -1 where an image cannot be read.

    A mirrored copy counts as a copy: it is looked for where the images as they are do not agree.

    Args:
        images: the crops.
        first_P: one image of each pair.
        second_P: the other.
    """
    found_P = np.full(len(first_P), -1.0)
    for start in range(0, len(first_P), _BATCH):
        part = slice(start, start + _BATCH)
        used, row = np.unique(np.concatenate([first_P[part], second_P[part]]), return_inverse=True)
        grey_NSS, readable_N = small_grey(images, used.tolist())
        a, b = row[: len(first_P[part])], row[len(first_P[part]) :]
        here_P = correlation(grey_NSS[a], grey_NSS[b])
        others = np.flatnonzero(here_P < SAME)
        mirrored_P = correlation(grey_NSS[a[others]], grey_NSS[b[others]][:, :, ::-1])
        here_P[others] = np.maximum(here_P[others], mirrored_P)
        found_P[part] = np.where(readable_N[a] & readable_N[b], here_P, -1.0)
    return found_P


def small_grey(images: Images, indices: Sequence[int]) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Grey values of some images, float32 (N, S, S), and whether each could be read (N,)."""
    side = _SIDES[-1]
    grey_NSS = np.zeros((len(indices), side, side), np.float32)
    readable_N = np.zeros(len(indices), bool)
    for place, index in enumerate(indices):
        try:
            content = images[index]
            pixels = decode(content) if isinstance(content, bytes) else content
        except BadRecordError:
            continue
        grey_NSS[place] = resized(pixels, side, side).astype(np.float32) @ _GREY
        readable_N[place] = True
    return grey_NSS, readable_N


def correlation(a_PSS: Floats, b_PSS: Floats) -> FloatArray:
    """Correlation of the fine structure of ``a`` with ``b`` moved onto it, (P,); -1 where they do not meet.

    Pairs that differ at the coarse size already are not compared at the fine one.
    """
    found_P = np.full(len(a_PSS), -1.0)
    left = np.arange(len(a_PSS))
    moves_P23 = np.tile(np.eye(2, 3, dtype=np.float32), (len(a_PSS), 1, 1))
    for side, steps in zip(_SIDES, _STEPS, strict=True):
        if not len(left):
            break
        a, b = _shrunk(a_PSS[left], side), _shrunk(b_PSS[left], side)
        moves_P23 = _registered(a, b, moves_P23, steps)
        agree_P, meets_P = _agreement_at(a, b, moves_P23, detail=side == _SIDES[-1])
        found_P[left] = np.where(meets_P, agree_P if side == _SIDES[-1] else -1.0, -1.0)
        kept = meets_P & (agree_P >= _COARSE_SAME)
        left, moves_P23 = left[kept], moves_P23[kept]
    return found_P


def _agreement_at(
    a_PSS: Floats, b_PSS: Floats, moves_P23: Floats, detail: bool
) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
    """Correlation of the images, or of their fine structure, and whether they overlap enough."""
    a_PSS, b_PSS = (_fine(a_PSS), _fine(b_PSS)) if detail else (a_PSS, b_PSS)
    moved_PSS, inside_PSS = _sampled(b_PSS, moves_P23)
    change_P22 = moves_P23[:, :, :2] - np.eye(2, dtype=np.float32)
    moved_P = np.maximum(np.abs(change_P22).max((1, 2)), np.abs(moves_P23[:, :, 2]).max(1))
    meets_P = (moved_P < _MOST_MOVED) & (inside_PSS.mean((1, 2)) > _LEAST_SHARED)
    return _correlated(a_PSS, moved_PSS, inside_PSS), meets_P


def _registered(a_PSS: Floats, b_PSS: Floats, moves_P23: Floats, steps: int) -> Floats:
    """Transforms that move ``b`` onto ``a``, from given ones."""
    side = a_PSS.shape[1]
    x_SS, y_SS = _grid(side)
    dy_PSS, dx_PSS = np.gradient(_standard(a_PSS, np.ones_like(a_PSS)), 2 / side, axis=(1, 2))
    slopes = [dx_PSS * x_SS, dx_PSS * y_SS, dx_PSS, dy_PSS * x_SS, dy_PSS * y_SS, dy_PSS]
    slope_PM6 = np.stack([slope.reshape(len(a_PSS), -1) for slope in slopes], axis=2)
    square_P66 = slope_PM6.transpose(0, 2, 1) @ slope_PM6
    square_P66 += 1e-3 * np.trace(square_P66, axis1=1, axis2=2)[:, None, None] * np.eye(6) + 1e-6 * np.eye(6)
    for _ in range(steps):
        moved_PSS, inside_PSS = _sampled(b_PSS, moves_P23)
        error_PSS = (_standard(moved_PSS, inside_PSS) - _standard(a_PSS, inside_PSS)) * inside_PSS
        pull_P6 = slope_PM6.transpose(0, 2, 1) @ error_PSS.reshape(len(a_PSS), -1, 1)
        step_P6 = np.linalg.solve(square_P66, pull_P6)[:, :, 0].clip(-0.15, 0.15)
        moves_P23 = _undone(moves_P23, step_P6.reshape(-1, 2, 3))
    return moves_P23


def _undone(moves_P23: Floats, step_P23: FloatArray) -> Floats:
    """The transforms after the inverse of a step."""
    whole_P33 = np.tile(np.eye(3), (len(moves_P23), 1, 1))
    step_P33 = whole_P33.copy()
    whole_P33[:, :2] = moves_P23
    step_P33[:, :2] += step_P23
    return (whole_P33 @ np.linalg.inv(step_P33))[:, :2].astype(np.float32)


def _grid(side: int) -> tuple[Floats, Floats]:
    """Places x and y of the pixels' centres, from -1 to 1, (S, S) each."""
    line = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
    x_SS, y_SS = np.meshgrid(line, line)
    return x_SS, y_SS


def _sampled(b_PSS: Floats, moves_P23: Floats) -> tuple[Floats, Floats]:
    """The images at moved places (bilinear), and 1 where these lie inside them, (P, S, S) each."""
    side = b_PSS.shape[1]
    x_SS, y_SS = _grid(side)
    x_PSS, y_PSS = (
        row_P3[:, 0, None, None] * x_SS + row_P3[:, 1, None, None] * y_SS + row_P3[:, 2, None, None]
        for row_P3 in (moves_P23[:, 0], moves_P23[:, 1])
    )
    column, row = (x_PSS + 1) * side / 2 - 0.5, (y_PSS + 1) * side / 2 - 0.5
    inside = (column >= 0) & (column <= side - 1) & (row >= 0) & (row <= side - 1)
    left, top = (np.floor(v.clip(0, side - 1.001)).astype(np.int64) for v in (column, row))
    right, down = (column - left).clip(0, 1), (row - top).clip(0, 1)
    flat, base = b_PSS.reshape(len(b_PSS), -1), top * side + left
    pair = np.arange(len(b_PSS))[:, None, None]
    upper = flat[pair, base] * (1 - right) + flat[pair, base + 1] * right
    lower = flat[pair, base + side] * (1 - right) + flat[pair, base + side + 1] * right
    moved = upper * (1 - down) + lower * down
    return moved.astype(np.float32), inside.astype(np.float32)


def _standard(grey_PSS: Floats, weight_PSS: Floats) -> Floats:
    """Grey values with mean 0 and deviation 1 where the weight is 1."""
    total = np.maximum(weight_PSS.sum((1, 2), keepdims=True), 1)
    centred = grey_PSS - (grey_PSS * weight_PSS).sum((1, 2), keepdims=True) / total
    spread = np.sqrt((centred**2 * weight_PSS).sum((1, 2), keepdims=True) / total)
    standard: Floats = (centred / np.maximum(spread, 1e-3)).astype(np.float32)
    return standard


def _correlated(a_PSS: Floats, b_PSS: Floats, weight_PSS: Floats) -> FloatArray:
    """Correlation where the weight is 1; differences within the noise of a JPEG count for nothing."""
    total_P = np.maximum(weight_PSS.sum((1, 2)), 1)
    a, b = (
        (grey - ((grey * weight_PSS).sum((1, 2)) / total_P)[:, None, None]) * weight_PSS
        for grey in (a_PSS, b_PSS)
    )
    common_P, a_P, b_P = ((x * y).sum((1, 2)) / total_P + _NOISE**2 for x, y in ((a, b), (a, a), (b, b)))
    found: FloatArray = common_P / np.sqrt(a_P * b_P)
    return found


def _shrunk(grey_PSS: Floats, side: int) -> Floats:
    """The mean of square blocks."""
    block = grey_PSS.shape[1] // side
    shrunk: Floats = grey_PSS.reshape(len(grey_PSS), side, block, side, block).mean((2, 4))
    return shrunk


def _fine(grey_PSS: Floats) -> Floats:
    """What differs from the surroundings (a box of 7 pixels)."""
    padded = np.pad(grey_PSS, ((0, 0), (4, 3), (4, 3)), mode="edge").cumsum(1).cumsum(2)
    around = padded[:, 7:, 7:] - padded[:, :-7, 7:] - padded[:, 7:, :-7] + padded[:, :-7, :-7]
    fine: Floats = (grey_PSS - around / 49).astype(np.float32)
    return fine
