"""The threshold for a false-accept rate, with bootstrap intervals of independent pairs. R resamples.

Pairs of a protocol share people: `facescale.evaluate.identity_points` has intervals that know it.
"""

from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, FloatArray
from facescale.evaluate.roc import ROUND_UP, Roc, roc


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold for a false-accept rate, with what resampling the pairs says of its certainty.

    Attributes:
        far: the rate that was asked for.
        threshold: lowest observed score whose FAR does not exceed ``far``; infinity where none achieves it.
        threshold_low: lower end of its bootstrap interval.
        threshold_high: upper end.
        tar: true-accept rate at ``threshold``.
        tar_low: lower end of its bootstrap interval.
        tar_high: upper end.
        supported: whether the set has enough impostor pairs to speak of this FAR (see `Roc.supports`).
    """

    far: float
    threshold: float
    threshold_low: float
    threshold_high: float
    tar: float
    tar_low: float
    tar_high: float
    supported: bool

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Low and high end by the name of the figure, where they are finite."""
        ends = {f"tar@far={self.far:g}": (self.tar_low, self.tar_high)}
        if self.usable:
            ends[f"threshold@far={self.far:g}"] = (self.threshold_low, self.threshold_high)
        return ends

    @property
    def usable(self) -> bool:
        """Whether the threshold may be handed on: the set supports it, and it and its interval are finite."""
        return self.supported and bool(
            np.isfinite([self.threshold, self.threshold_low, self.threshold_high]).all()
        )


def threshold_at_far(
    scores: FloatArray,
    is_genuine: BoolArray,
    far: float,
    num_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> OperatingPoint:
    """Threshold and TAR at a false-accept rate with bootstrap intervals: `operating_point` of the scores."""
    return operating_point(roc(scores, is_genuine), far, num_resamples, confidence, seed)


def operating_point(
    curve: Roc, far: float, num_resamples: int = 2000, confidence: float = 0.95, seed: int = 0
) -> OperatingPoint:
    """Threshold and TAR at a false-accept rate, with percentile bootstrap intervals.

    Genuine and impostor pairs are resampled with replacement. Only two numbers of a resample matter, and both
    have a closed distribution, so they are sampled directly, for any N: the rank (in the original order) of
    its k-th largest impostor score is ``ceil(n U)``, U the k-th smallest of n uniforms: Beta(k, n - k + 1);
    and its number of accepted genuine pairs is binomial. Pairs that share images are not independent, so the
    true interval is somewhat wider.

    Raises:
        ValueError: a rate outside (0, 1], a confidence outside (0, 1), fewer than one resample.
    """
    if not 0 < confidence < 1 or num_resamples < 1:
        raise ValueError(
            f"confidence {confidence} with {num_resamples} resamples does not define an interval; "
            "use a confidence between 0 and 1 and at least one resample"
        )
    index = curve.index_at(far)
    n = curve.num_impostor
    rejected = int(far * n * ROUND_UP) + 1  # the threshold lies just above the impostor score of this rank
    generator = np.random.default_rng(seed)
    if rejected > n:
        index_R = np.full(num_resamples, index)
    else:
        rank_R = np.ceil(n * generator.beta(rejected, n - rejected + 1, num_resamples))
        # Point i accepts far[i] * n impostors; the last one with fewer than ``rank`` rejects that score.
        index_R = np.searchsorted(np.round(curve.far * n), rank_R, side="left") - 1
    tar_R = generator.binomial(curve.num_genuine, curve.tar[index_R]) / curve.num_genuine
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    # Observed values, not interpolated ones: infinity (nothing is accepted) is a possible threshold.
    threshold_low, threshold_high = np.quantile(curve.thresholds[index_R], tails, method="inverted_cdf")
    tar_low, tar_high = np.quantile(tar_R, tails)
    return OperatingPoint(
        far=far,
        threshold=float(curve.thresholds[index]),
        threshold_low=float(threshold_low),
        threshold_high=float(threshold_high),
        tar=float(curve.tar[index]),
        tar_low=float(tar_low),
        tar_high=float(tar_high),
        supported=curve.supports(far),
    )
