"""The curves of a result as short lists of numbers, for its file and its page."""

from typing import Any

import numpy as np

from facescale.arrays import BoolArray, FloatArray
from facescale.evaluate.roc import Roc

NUM_POINTS = 200
NUM_BINS = 60  # of a score distribution


def roc_points(curve: Roc) -> dict[str, Any]:
    """Rates and thresholds of an exact ROC at false-accept rates in equal ratios."""
    far = np.geomspace(1 / curve.num_impostor, 1, NUM_POINTS)
    at = np.searchsorted(curve.far, far * (1 + 1e-12), side="right") - 1
    thresholds = curve.thresholds[at]
    return {
        "far": _short(far),
        "tar": _short(curve.tar[at]),
        "threshold": [value if np.isfinite(value) else None for value in _short(thresholds)],
        "genuine_pairs": curve.num_genuine,
        "impostor_pairs": curve.num_impostor,
    }


def rates_by_threshold(curve: Roc) -> dict[str, list[float]]:
    """FMR and FNMR at cosines in equal steps over the observed scores."""
    finite = curve.thresholds[np.isfinite(curve.thresholds)]
    cosines = np.linspace(finite.min(), finite.max(), NUM_POINTS)
    # Thresholds descend; the last point whose threshold is at least the cosine accepts what scores >= it.
    at = np.searchsorted(-curve.thresholds, -cosines, side="right") - 1
    return {
        "threshold": _short(cosines),
        "fmr": _short(curve.far[at]),
        "fnmr": _short(1 - curve.tar[at]),
    }


def score_shares(scores: FloatArray, is_genuine: BoolArray) -> dict[str, list[float]]:
    """Percent of the genuine and of the impostor scores in bins over their range."""
    margin = 0.005  # so that a collapsed network, whose scores are all equal, has an axis too
    edges = np.linspace(scores.min() - margin, scores.max() + margin, NUM_BINS + 1)
    shares = {
        kind: _short(100 * np.histogram(scores[chosen], edges)[0] / chosen.sum())
        for kind, chosen in (("genuine", is_genuine), ("impostor", ~is_genuine))
    }
    return {"edges": _short(edges), **shares}


def _short(values: FloatArray) -> list[float]:
    """Six digits, which is more than a picture shows."""
    return [float(f"{value:.6g}") for value in np.asarray(values, dtype=np.float64)]
