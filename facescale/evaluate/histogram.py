"""The histogram ROC of F2C (Fast Face Classification), kept so that its published figures can be compared.

Exact curves are in `facescale.evaluate.metrics`; a histogram rounds every score to its bin.
"""

from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, FloatArray


@dataclass(frozen=True)
class HistogramRoc:
    """Rates of pairs in bin i or above, for ascending thresholds.

    Attributes:
        far: (bins,) descending false-accept rates.
        tar: (bins,) descending true-accept rates (called "vr" there).
        thresholds: (bins,) the score each bin stands for.
    """

    far: FloatArray
    tar: FloatArray
    thresholds: FloatArray

    def tar_at(self, far: float) -> tuple[float, int]:
        """TAR at ``far`` by linear interpolation, and the index of the point on its left.

        The TAR of a point at exactly ``far`` is returned. Where the nearest point on the left has 8 times
        ``far`` or more, the set is too small to say, and the answer is 0.
        """
        left, right = 0, len(self.far) - 1
        while left + 1 < right:
            middle = (left + right) // 2
            if self.far[middle] == far:
                return float(self.tar[middle]), middle
            if self.far[middle] > far:
                left = middle
            else:
                right = middle
        if self.far[left] / far >= 8:
            return 0.0, left
        span = self.far[left] - self.far[right]
        share = (far - self.far[right]) / span if span else 0.0
        return float(self.tar[right] + share * (self.tar[left] - self.tar[right])), left


def score_edges(scores: FloatArray, num_bins: int = 1000) -> tuple[FloatArray, FloatArray]:
    """Thresholds (num_bins,) spread over the range of the scores, and the edges (num_bins + 1,) around them.

    Edges lie half a bin below the thresholds, plus 2e-6; scores below the first edge are left out.
    """
    low, high = scores.min(), scores.max()
    width = (high - low) / num_bins
    thresholds = low + (high - low) * np.arange(1, num_bins + 1) / num_bins
    first = thresholds - width / 2 + 2e-6
    return thresholds, np.append(first, first[-1] + width)


def histogram_roc(scores: FloatArray, is_genuine: BoolArray, num_bins: int = 1000) -> HistogramRoc:
    """ROC of scores (N,) from ``num_bins`` bins over their range."""
    thresholds, edges = score_edges(scores, num_bins)
    return HistogramRoc(
        far=_share_from_bin(scores[~is_genuine], edges),
        tar=_share_from_bin(scores[is_genuine], edges),
        thresholds=thresholds,
    )


def _share_from_bin(scores: FloatArray, edges: FloatArray) -> FloatArray:
    counts = np.histogram(scores, bins=edges)[0]
    return np.cumsum(counts[::-1])[::-1] / len(scores)


def most_accurate_threshold(scores: FloatArray, is_genuine: BoolArray, num_bins: int = 1000) -> float:
    """Mean of all bin edges at which ``score >= edge`` classifies most pairs correctly."""
    _, edges = score_edges(scores, num_bins)
    genuine, impostor = np.sort(scores[is_genuine]), np.sort(scores[~is_genuine])
    correct = len(genuine) - np.searchsorted(genuine, edges) + np.searchsorted(impostor, edges)
    return float(edges[correct == correct.max()].mean())
