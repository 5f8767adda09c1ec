"""Thresholds carried from one set to another: chosen at a false-accept rate on A, errors counted on B."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from facescale.evaluate.intervals import RateInterval
from facescale.evaluate.scored import ScoredImages


@dataclass(frozen=True)
class Transferred:
    """A threshold of one set, on another one.

    Attributes:
        chosen_on: name of the set that the threshold was chosen on.
        far: false-accept rate there.
        threshold: of the cosine.
        fmr: false-match rate observed here; None where more impostor pairs are accepted than were kept.
        fmr_low: lower end of its interval.
        fmr_high: upper end.
        fnmr: false-non-match rate observed here.
        fnmr_low: lower end of its interval.
        fnmr_high: upper end.
    """

    chosen_on: str
    far: float
    threshold: float
    fmr: float | None
    fmr_low: float | None
    fmr_high: float | None
    fnmr: float
    fnmr_low: float
    fnmr_high: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def transferred(chosen_on: str, thresholds: Mapping[float, float], on: ScoredImages) -> list[Transferred]:
    """Errors on the pairs ``on`` at the thresholds of another set.

    Args:
        chosen_on: name of the set that the thresholds were chosen on.
        thresholds: by its false-accept rate.
        on: the pairs that they are tried on.
    """
    rows = []
    for far, threshold in sorted(thresholds.items(), reverse=True):
        accepts: RateInterval | None = on.fmr(threshold) if on.knows(threshold) else None
        found = on.tar(threshold)
        rows.append(
            Transferred(
                chosen_on=chosen_on,
                far=far,
                threshold=threshold,
                fmr=accepts.rate if accepts else None,
                fmr_low=accepts.low if accepts else None,
                fmr_high=accepts.high if accepts else None,
                fnmr=1 - found.rate,
                fnmr_low=1 - found.high,
                fnmr_high=1 - found.low,
            )
        )
    return rows
