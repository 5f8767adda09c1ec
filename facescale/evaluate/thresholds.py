"""The thresholds of an evaluation that may be handed on with the weights."""

from collections.abc import Sequence

from facescale.evaluate.figures import Result
from facescale.evaluate.verification_result import VerificationResult
from facescale.model_card import Threshold


def thresholds_of(results: Sequence[Result]) -> dict[float, Threshold] | None:
    """By false-accept rate, those that the first pair protocol has enough pairs for; None without one."""
    of_pairs = next((one for one in results if isinstance(one, VerificationResult)), None)
    if of_pairs is None:
        return None
    return {
        point.far: Threshold(point.threshold, point.threshold_low, point.threshold_high, of_pairs.name)
        for point in of_pairs.points
        if point.usable
    }
