"""Align a face: the similarity transform that brings five landmarks to the ArcFace template."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from facescale.arrays import FloatArray, Pixels

# Left eye, right eye, tip of the nose, left and right corner of the mouth (as seen in the picture): pixels of
# the 112 x 112 template that InsightFace's data sets and protocols are aligned to.
TEMPLATE: npt.NDArray[np.float64] = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
SIZE = 112


def template(size: int = SIZE) -> npt.NDArray[np.float64]:
    """Landmarks (5, 2) of an aligned face of ``size`` pixels."""
    return TEMPLATE * (size / SIZE)


def similarity(source_52: FloatArray, target_52: FloatArray) -> npt.NDArray[np.float64]:
    """The similarity transform (rotation, one scale, shift) of least squares.

    Umeyama, "Least-squares estimation of transformation parameters between two point patterns", PAMI 1991,
    equations 40 to 42.

    Args:
        source_52: points (N, 2).
        target_52: where they should come to lie, (N, 2).

    Returns:
        Matrix (2, 3): target = M[:, :2] @ source + M[:, 2].

    Raises:
        ValueError: points that are not finite, or that all lie on one spot.
    """
    source, target = np.asarray(source_52, np.float64), np.asarray(target_52, np.float64)
    if source.shape != target.shape or source.ndim != 2 or source.shape[1] != 2:
        raise ValueError(
            f"landmarks have shape {source.shape}, the template {target.shape}; both need (5, 2)"
        )
    if not np.isfinite(source).all():
        raise ValueError("landmarks are not finite numbers")
    mean_source, mean_target = source.mean(axis=0), target.mean(axis=0)
    centred, variance = source - mean_source, float(source.var(axis=0).sum())
    if variance <= 1e-9:
        raise ValueError("all landmarks lie on one spot; they cannot be aligned")
    left, strength, right = np.linalg.svd((target - mean_target).T @ centred / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right)) or 1.0])
    rotation = left * sign @ right
    linear = rotation * ((strength * sign).sum() / variance)
    return np.column_stack([linear, mean_target - linear @ mean_source])


def align(photo_HW3: Pixels, landmarks_52: FloatArray, size: int = SIZE) -> Pixels:
    """Cut the face out of a photo so that its landmarks lie on the template.

    Pixels are interpolated bilinearly, black where the photo ends. Where the face is more than twice as large
    as the result, the photo is first averaged down, so that no pixel is passed over.

    Args:
        photo_HW3: uint8 RGB (H, W, 3).
        landmarks_52: pixels (x, y) of left eye, right eye, nose, left and right corner of the mouth.
        size: side of the result, pixels.

    Returns:
        uint8 RGB (size, size, 3).

    Raises:
        ValueError: landmarks that cannot be aligned.
    """
    points = np.asarray(landmarks_52, np.float64)
    scale = np.hypot(*similarity(points, template(size))[0, :2])
    picture = Image.fromarray(photo_HW3)
    if scale < 0.5:
        factor = int(1 / scale)
        picture = picture.reduce(factor)
        points = (points + 0.5) / factor - 0.5
    back = np.linalg.inv(np.vstack([similarity(points, template(size)), [0, 0, 1]]))
    y_P, x_P = (axis.ravel() for axis in np.mgrid[0:size, 0:size])
    from_x_P, from_y_P = back[:2, :2] @ np.stack([x_P, y_P]) + back[:2, 2:]
    return _bilinear(np.asarray(picture), from_x_P, from_y_P).reshape(size, size, 3)


def _bilinear(photo_HW3: Pixels, x_P: FloatArray, y_P: FloatArray) -> Pixels:
    """Colours (P, 3) at places between pixels, rounded to nearest; black outside (Pillow rounds down)."""
    height, width = photo_HW3.shape[:2]
    left_P, top_P = np.floor(x_P).astype(np.int64), np.floor(y_P).astype(np.int64)
    sum_P3 = np.zeros((len(x_P), 3))
    for right in (0, 1):
        for below in (0, 1):
            column_P, row_P = left_P + right, top_P + below
            weight_P = (1 - np.abs(x_P - column_P)) * (1 - np.abs(y_P - row_P))
            inside_P = (column_P >= 0) & (column_P < width) & (row_P >= 0) & (row_P < height)
            colour_P3 = photo_HW3[row_P.clip(0, height - 1), column_P.clip(0, width - 1)]
            sum_P3 += (weight_P * inside_P)[:, None] * colour_P3
    return np.rint(sum_P3).astype(np.uint8)
