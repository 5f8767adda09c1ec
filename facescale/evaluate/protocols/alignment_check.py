"""Check listed landmarks before a long evaluation: how far they lie from the template once aligned."""

import numpy as np

from facescale.arrays import FloatArray
from facescale.prepare.align import SIZE, TEMPLATE

FAR_OFF = 12.0  # pixels of 112; a wrong order of the points gives more than that, most faces far less
MOST = 0.5  # the share of such faces that a usable list may hold, because faces in profile fit badly


def residuals(landmarks_N52: FloatArray) -> FloatArray:
    """Root mean square distance (N,) of aligned landmarks from the template, pixels of 112.

    Points are complex numbers here: the best rotation, scale and shift is then one least-squares factor.
    """
    points = landmarks_N52[..., 0] + 1j * landmarks_N52[..., 1]
    target = TEMPLATE[:, 0] + 1j * TEMPLATE[:, 1]
    points = points - points.mean(axis=1, keepdims=True)
    target = target - target.mean()
    length = np.maximum((np.abs(points) ** 2).sum(axis=1), 1e-12)
    factor = (points.conj() * target).sum(axis=1) / length
    distance_N: FloatArray = np.sqrt((np.abs(factor[:, None] * points - target) ** 2).mean(axis=1))
    return distance_N


def alignment_note(landmarks_N52: FloatArray) -> tuple[str, ...]:
    """A remark where many landmarks do not fit a face, as in a list with another order of the points."""
    distance_N = residuals(landmarks_N52)
    share = float(np.mean(distance_N > FAR_OFF))
    if share <= MOST:
        return ()
    return (
        f"{share:.0%} of the landmarks lie more than {FAR_OFF:g} of {SIZE} pixels from the template once "
        "aligned; the order of points must be: left eye, right eye, nose, left and right corner of the mouth",
    )
