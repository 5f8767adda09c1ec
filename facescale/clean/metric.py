"""The metric in which labels are judged: directions that vary within identities count less.

N images, C identities, D embedding size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.evaluate.rows import unit_rows

_KEPT = 0.9  # of the deviations from the means, the smallest: the others may be wrong labels
_BLOCK = 1 << 16  # rows in float64 at a time
_SHRINK = 0.1  # of the mean variance, added to each

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Metric:
    """A linear map of embeddings, after which cosines tell people apart better.

    Attributes:
        mean_D: subtracted first.
        map_DD: applied then.
    """

    mean_D: npt.NDArray[np.float64]
    map_DD: npt.NDArray[np.float64]

    def apply(self, unit_ND: Floats) -> Floats:
        """Unit rows (N, D)."""
        mapped_ND = np.empty((len(unit_ND), self.map_DD.shape[1]), np.float32)
        for start in range(0, len(unit_ND), _BLOCK):
            part = slice(start, start + _BLOCK)
            mapped_ND[part] = unit_rows((unit_ND[part] - self.mean_D) @ self.map_DD)
        return mapped_ND


def within_class_metric(unit_ND: Floats, ids: IntArray) -> Metric:
    """Whitening of the variation within identities.

    Hatch, Kajarekar and Stolcke, "Within-class covariance normalization", Interspeech 2006.

    A tenth of the images, those farthest from the mean of their identity, is left out, so wrong labels hardly
    count. With few images the map stays near the identity.

    Args:
        unit_ND: unit embeddings.
        ids: (N,), from 0 on.
    """
    mean_D = unit_ND.mean(axis=0, dtype=np.float64)
    counts = np.bincount(ids)
    sum_CD = np.zeros((len(counts), unit_ND.shape[1]))
    np.add.at(sum_CD, ids, unit_ND)
    mean_CD = (sum_CD / np.maximum(counts, 1)[:, None]).astype(np.float32)
    far_N = np.linalg.norm(unit_ND - mean_CD[ids], axis=1)
    used = np.flatnonzero((far_N <= np.quantile(far_N, _KEPT)) & (counts[ids] > 1))
    covariance_DD = np.zeros((unit_ND.shape[1],) * 2)
    for start in range(0, len(used), _BLOCK):
        part = used[start : start + _BLOCK]
        rest = (unit_ND[part] - mean_CD[ids[part]]).astype(np.float64)
        covariance_DD += rest.T @ rest
    values_D, vectors_DD = np.linalg.eigh(covariance_DD / max(len(used), 1))
    scale = max(float(values_D.mean()), 1e-9)
    # With fewer images than dimensions the small variances are unknown: they are drawn towards the mean.
    shrink = _SHRINK + unit_ND.shape[1] / max(len(used), 1)
    map_DD = vectors_DD / np.sqrt(np.maximum(values_D, 0) / scale + shrink)
    return Metric(mean_D, map_DD)
