"""Max/GeoMean: how much the error rates of groups differ (NIST, FRVT part 8), with an interval."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from facescale.evaluate.intervals import CONFIDENCE, RateInterval

# G groups


class OfGroup(Protocol):
    """The error rate of a group."""

    @property
    def first(self) -> str:
        """Name of the group."""
        ...

    @property
    def found(self) -> RateInterval | None:
        """Its rate; None where it has too few pairs."""
        ...


@dataclass(frozen=True)
class MaxOverGeoMean:
    """The largest rate divided by the geometric mean of all.

    Attributes:
        value: 1 means that all groups are alike; None where there is no figure.
        interval: low and high end.
        reason: why there is no figure; else empty.
    """

    value: float | None = None
    interval: tuple[float, float] | None = None
    reason: str = ""


def max_over_geomean(rates: Sequence[OfGroup]) -> MaxOverGeoMean:
    """The ratio of groups, with an interval that holds whichever group is the largest.

    A group without an error has no place in a geometric mean, and leaving it out would hide the difference,
    so there is no figure then. The interval holds all ratios that are possible while each of the G rates is
    in its own interval at a confidence of 1 - 0.05 / G; these hold together with 95 % (Bonferroni). It is
    wide where a group is small, and begins at 1 where all groups may be alike.
    """
    known = [(rate.first, rate.found) for rate in rates if rate.found is not None]
    if len(known) < 2:
        return MaxOverGeoMean(reason=f"{len(known)} group has a figure, two are needed")
    if unfailing := [name for name, found in known if not found.rate]:
        return MaxOverGeoMean(reason=f"no error in group '{unfailing[0]}'")
    value_G = np.array([found.rate for _, found in known])
    each = 1 - (1 - CONFIDENCE) / len(known)
    ends_G2 = np.array([found.at(each) for _, found in known])
    low_G, high_G = np.log(np.maximum(ends_G2, np.finfo(float).tiny)).T
    level = low_G.max()  # the largest rate is no lower; the others come as near to it as they may
    low = level - np.minimum(high_G, level).mean()
    high = np.max(high_G - (low_G.sum() - low_G + high_G) / len(known))
    value = float(value_G.max() / np.exp(np.log(value_G).mean()))
    return MaxOverGeoMean(value, (float(np.exp(low)), float(np.exp(high))))
