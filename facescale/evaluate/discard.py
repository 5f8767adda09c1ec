"""Error versus discard (also: error versus reject, ERC): does a quality score find the images that fail?

Grother and Tabassi, "Performance of biometric quality measures", IEEE TPAMI 29 (2007); ISO/IEC 29794-1. The
genuine pairs of the lowest quality are discarded, and the FNMR of those that are left is counted at a fixed
threshold. The quality of a pair is that of its worse image. G genuine pairs, F fractions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from facescale.arrays import BoolArray, FloatArray
from facescale.evaluate.attributes import Attribute, named
from facescale.evaluate.scored import ScoredImages

NORM = "embedding norm"
UP_TO = 0.2  # discarded share over which the partial area is taken
_STEPS = 400  # of the partial area
_DRAWN = np.linspace(0, 0.95, 96)


@dataclass(frozen=True)
class ErrorDiscard:
    """An error-versus-discard curve.

    Attributes:
        quality: what the images are ranked by.
        far: false-accept rate that the threshold was chosen for.
        threshold: of the cosine; stays the same.
        pairs: genuine pairs that have a quality.
        fnmr: of all of them.
        partial: mean FNMR while 0 to 20 % are discarded (the partial area divided by its width).
        best: the same if the pairs that fail were discarded first.
        discarded: (F,) shares, for the page.
        rates: (F,) FNMR of what is left.
        notes: what was left out.
    """

    quality: str
    far: float
    threshold: float
    pairs: int
    fnmr: float
    partial: float
    best: float
    discarded: FloatArray
    rates: FloatArray
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the curve."""
        return {
            "quality": self.quality,
            "far": self.far,
            "threshold": self.threshold,
            "genuine_pairs": self.pairs,
            "fnmr": self.fnmr,
            "partial_auc": self.partial,
            "partial_auc_best": self.best,
            "partial_auc_up_to": UP_TO,
            "notes": list(self.notes),
        }

    def curve(self) -> dict[str, list[float]]:
        """Points for the page."""
        return {"discarded": self.discarded.tolist(), "fnmr": self.rates.tolist()}


def fnmr_after_discard(is_error: BoolArray, quality: FloatArray, discarded: FloatArray) -> FloatArray:
    """FNMR (F,) of the pairs that are left when a share of the worst was discarded.

    Pairs of one quality have no order among them, so each loses its part of their errors: the mean over all
    orders.

    Args:
        is_error: (G,) whether a pair is rejected.
        quality: (G,) of each pair; higher is better.
        discarded: (F,) shares from 0 to below 1.

    Raises:
        ValueError: lengths that differ, no pair, a quality that is not finite, a share outside [0, 1).
    """
    if len(is_error) != len(quality) or not len(is_error) or not np.isfinite(quality).all():
        raise ValueError(
            f"{len(is_error)} errors and {len(quality)} qualities ({int((~np.isfinite(quality)).sum())} not "
            "finite) make no curve; pass a finite quality for each genuine pair"
        )
    if len(discarded) and not 0 <= min(discarded) <= max(discarded) < 1:
        raise ValueError(
            f"shares from {min(discarded):g} to {max(discarded):g} cannot be discarded; use 0 to below 1"
        )
    levels, level_G = np.unique(quality, return_inverse=True)
    ends = np.cumsum(np.append(0, np.bincount(level_G, minlength=len(levels))))
    errors = np.cumsum(np.append(0, np.bincount(level_G, is_error, minlength=len(levels))))
    gone_F = np.asarray(discarded, np.float64) * len(quality)
    left_F = errors[-1] - np.interp(gone_F, ends, errors)
    rates: FloatArray = np.maximum(left_F, 0) / (len(quality) - gone_F)
    return rates


def partial_area(is_error: BoolArray, quality: FloatArray, up_to: float = UP_TO) -> float:
    """Mean FNMR while 0 to ``up_to`` of the pairs are discarded; see `fnmr_after_discard`.

    Raises:
        ValueError: as there.
    """
    rates = fnmr_after_discard(is_error, quality, np.linspace(0, up_to, _STEPS + 1))
    return float((rates[1:] + rates[:-1]).sum() / 2 / _STEPS)


def error_discard(
    scored: ScoredImages, far: float, threshold: float, quality: Attribute | None = None
) -> ErrorDiscard | None:
    """The curve of a protocol at one threshold; None where no genuine pair is rejected or none has a quality.

    Args:
        scored: the pairs.
        far: false-accept rate that the threshold was chosen for.
        threshold: pairs that score as much are accepted.
        quality: of each image or person, higher is better; by default the length of the raw embedding.

    Raises:
        ValueError: a quality that is not a number.
    """
    pairs, notes = scored.genuine, list[str]()
    quality_N = scored.norm_N
    if quality is not None:
        quality_N = np.full(len(scored.norm_N), np.nan)
        quality_N[scored.used] = quality.numbers(scored.key, scored.used)
        lacking = scored.used[np.isnan(quality_N[scored.used])]
        if len(lacking):
            names = named([scored.key(int(index)) for index in lacking[:4]])
            notes.append(
                f"{len(lacking):,} images have no {quality.column} in '{quality.source}'; their pairs are in "
                f"no error-versus-discard curve: {names}"
            )
    quality_G = np.minimum(quality_N[pairs.first], quality_N[pairs.second])
    known_G = np.isfinite(quality_G)
    quality_G, error_G = quality_G[known_G], ~pairs.from_score(threshold)[known_G]
    if not error_G.any():
        return None
    return ErrorDiscard(
        quality=NORM if quality is None else quality.column,
        far=far,
        threshold=threshold,
        pairs=len(error_G),
        fnmr=float(error_G.mean()),
        partial=partial_area(error_G, quality_G),
        best=partial_area(error_G, -error_G.astype(np.float64)),
        discarded=_DRAWN,
        rates=fnmr_after_discard(error_G, quality_G, _DRAWN),
        notes=tuple(notes),
    )
