"""Errors by group of people at one threshold: FMR of every two groups, FNMR of each, and how far they differ.

The threshold is the same for all groups, as NIST asks it (FRVT part 8, NISTIR 8280 and 8429), and so is the
measure of inequity: the largest rate of a group divided by the geometric mean of all of them. N images, G
groups.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement
from typing import Any

import numpy as np

from facescale.arrays import BoolArray, IntArray
from facescale.evaluate.attributes import Attribute, named
from facescale.evaluate.group_cells import GroupCells
from facescale.evaluate.group_ratio import max_over_geomean
from facescale.evaluate.intervals import RateInterval, mean_interval
from facescale.evaluate.roc import MIN_FALSE_ACCEPTS, ROUND_UP
from facescale.evaluate.scored import ScoredImages, ScoredSearch

MOST_GROUPS = 24
MIN_GENUINE = 30  # genuine pairs (or mated probes) of a group that gets a figure


@dataclass(frozen=True)
class GroupRate:
    """Error rate of a group, or of the pairs of two groups.

    Attributes:
        first: name of a group.
        second: name of the other one, or the same.
        count: pairs (or probes).
        found: share of errors with its interval; None where ``reason`` says why there is no figure.
        reason: why there is no figure; else empty.
    """

    first: str
    second: str
    count: int
    found: RateInterval | None
    reason: str = ""

    @property
    def rate(self) -> float | None:
        """Share of errors."""
        return None if self.found is None else self.found.rate

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        ends = (self.found.low, self.found.high) if self.found else (None, None)
        keys = ("first", "second", "count", "rate", "low", "high", "reason")
        values = (self.first, self.second, self.count, self.rate, *ends, self.reason)
        return dict(zip(keys, values, strict=True))


@dataclass(frozen=True)
class GroupRates:
    """Errors of all groups at one threshold.

    Attributes:
        column: what the groups are.
        source: the file that says it.
        names: of the G groups, in alphabetical order.
        images: of each group.
        threshold: of the cosine.
        far: the false-accept rate of all pairs that the threshold was chosen for.
        false_accepts: FMR of each two groups, G (G + 1) / 2; for a search, FPIR of each group.
        false_rejects: FNMR of each group; for a search, FNIR.
        is_search: whether these are rates of identification.
        notes: what was left out.
    """

    column: str
    source: str
    names: tuple[str, ...]
    images: tuple[int, ...]
    threshold: float
    far: float
    false_accepts: tuple[GroupRate, ...]
    false_rejects: tuple[GroupRate, ...]
    is_search: bool
    notes: tuple[str, ...]

    @property
    def within(self) -> list[GroupRate]:
        """False accepts within each group."""
        return [rate for rate in self.false_accepts if rate.first == rate.second]

    @property
    def words(self) -> tuple[str, str]:
        """What the two rates are called."""
        return ("FPIR", "FNIR") if self.is_search else ("FMR", "FNMR")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        accept, reject = self.words
        ratios = {
            word.lower(): max_over_geomean(rates)
            for word, rates in ((accept, self.within), (reject, self.false_rejects))
        }
        lacking = [
            f"no Max/GeoMean of {key.upper()}: {one.reason}" for key, one in ratios.items() if one.reason
        ]
        return {
            "column": self.column,
            "source": self.source,
            "far": self.far,
            "threshold": self.threshold,
            "images": dict(zip(self.names, self.images, strict=True)),
            accept.lower(): [rate.to_dict() for rate in self.false_accepts],
            reject.lower(): [rate.to_dict() for rate in self.false_rejects],
            **{f"max_over_geomean_{key}": one.value for key, one in ratios.items()},
            **{f"max_over_geomean_{key}_interval": one.interval for key, one in ratios.items()},
            "notes": [*self.notes, *lacking],
        }


def groups_of(
    attribute: Attribute, scored: ScoredImages | ScoredSearch
) -> tuple[tuple[str, ...], IntArray, list[str]]:
    """Names of the groups, number of the group of each image (N,), and the images without one; those have -1.

    Raises:
        ValueError: no image has a group, all have the same one, or there are too many groups.
    """
    used = scored.used
    found = [attribute.of(scored.key(int(index))) for index in used]
    missing = [scored.key(int(index)) for index, group in zip(used, found, strict=True) if group is None]
    names = tuple(sorted({group for group in found if group is not None}))
    if not names:
        raise ValueError(
            f"none of the {len(used)} images has a group in '{attribute.source}'; its first column must name "
            f"them (such as {named(missing, 1)}) or the folders of people"
        )
    if not 2 <= len(names) <= MOST_GROUPS:
        raise ValueError(
            f"column '{attribute.column}' of '{attribute.source}' makes {len(names)} groups of the images; "
            f"choose a column with 2 to {MOST_GROUPS} values"
        )
    number = {name: place for place, name in enumerate(names)}
    group_N = np.full(len(scored.person_N), -1)
    group_N[used] = [-1 if group is None else number[group] for group in found]
    return names, group_N, missing


def pair_rates(scored: ScoredImages, attribute: Attribute, far: float, threshold: float) -> GroupRates:
    """FMR of the pairs of every two groups, and FNMR of each group, at one threshold.

    A cell of fewer impostor pairs than ten false accepts at ``far`` take has no figure, and a group of fewer
    than 30 genuine pairs has none either. Intervals know that pairs share people.

    Args:
        scored: the pairs.
        attribute: which image or person is in which group.
        far: the false-accept rate of all pairs that the threshold was chosen for.
        threshold: pairs that score as much are accepted.

    Raises:
        ValueError: as `groups_of`.
    """
    names, group_N, missing = groups_of(attribute, scored)
    notes = _missing_note(attribute, missing, len(scored.used))
    genuine = scored.genuine
    first_K, second_K = group_N[genuine.first], group_N[genuine.second]
    if mixed := int(np.sum((first_K != second_K) & (first_K >= 0) & (second_K >= 0))):
        notes.append(f"{mixed:,} genuine pairs are of two groups and are in no FNMR")
    rejected_K = ~genuine.from_score(threshold)
    person_K = scored.person_N[genuine.first]
    rejects = []
    for group, name in enumerate(names):
        here = (first_K == group) & (second_K == group)
        rejects.append(_of_people(name, rejected_K[here], person_K[here], "genuine pairs"))
    accepts = _accepts(GroupCells(scored, group_N, len(names)), names, far, threshold)
    return _rates(attribute, names, group_N, (accepts, rejects), far, threshold, False, notes)


def search_rates(scored: ScoredSearch, attribute: Attribute, fpir: float, threshold: float) -> GroupRates:
    """FPIR of the strangers and FNIR of the mated probes of each group, at one threshold.

    Args:
        scored: the probes.
        attribute: which image or person is in which group.
        fpir: the rate of all strangers that the threshold was chosen for.
        threshold: a candidate must be strictly above it.

    Raises:
        ValueError: as `groups_of`.
    """
    names, group_N, missing = groups_of(attribute, scored)
    missed_M, alarm_U = scored.mate_M <= threshold, scored.other_U > threshold
    accepts, rejects = [], []
    needed = int(np.ceil(MIN_FALSE_ACCEPTS / fpir / ROUND_UP))
    for group, name in enumerate(names):
        mated, strangers = (group_N[probes] == group for probes in (scored.mated, scored.strangers))
        rejects.append(
            _of_people(name, missed_M[mated], scored.person_N[scored.mated[mated]], "mated probes")
        )
        people = scored.person_N[scored.strangers[strangers]]
        accepts.append(_of_people(name, alarm_U[strangers], people, "strangers", needed))
    notes = _missing_note(attribute, missing, len(scored.used))
    return _rates(attribute, names, group_N, (accepts, rejects), fpir, threshold, True, notes)


def strictest_rate(scored: ScoredImages, attribute: Attribute, fars: Sequence[float]) -> float:
    """The lowest of some false-accept rates that half of the groups have enough impostor pairs for.

    Args:
        scored: the pairs.
        attribute: which image or person is in which group.
        fars: rates that all pairs together support.

    Raises:
        ValueError: as `groups_of`; no rate.
    """
    if not fars:
        raise ValueError(
            "there are too few impostor pairs for any of the false-accept rates, so there is no threshold at "
            "which groups could be compared; use a larger set or a higher rate (--far)"
        )
    names, group_N, _ = groups_of(attribute, scored)
    cells = GroupCells(scored, group_N, len(names))
    counts = sorted(cells.count(group, group) for group in range(len(names)))
    median = counts[len(counts) // 2]
    supported = [far for far in fars if far * median * ROUND_UP >= MIN_FALSE_ACCEPTS]
    return min(supported, default=max(fars))


def _rates(
    attribute: Attribute,
    names: tuple[str, ...],
    group_N: IntArray,
    found: tuple[Sequence[GroupRate], Sequence[GroupRate]],
    far: float,
    threshold: float,
    is_search: bool,
    notes: Sequence[str],
) -> GroupRates:
    """Both rates of all groups, with the images of each."""
    return GroupRates(
        column=attribute.column,
        source=attribute.source,
        names=names,
        images=tuple(np.bincount(group_N[group_N >= 0], minlength=len(names)).tolist()),
        threshold=threshold,
        far=far,
        false_accepts=tuple(found[0]),
        false_rejects=tuple(found[1]),
        is_search=is_search,
        notes=tuple(notes),
    )


def _missing_note(attribute: Attribute, missing: Sequence[str], total: int) -> list[str]:
    if not missing:
        return []
    return [
        f"{len(missing):,} of {total:,} images have no {attribute.column} in '{attribute.source}' and are in "
        f"no group: {named(missing)}"
    ]


def _of_people(
    name: str, is_error: BoolArray, person: IntArray, what: str, needed: int = MIN_GENUINE
) -> GroupRate:
    """Rate over pairs or probes that are of one person each."""
    if len(is_error) < needed:
        return GroupRate(name, name, len(is_error), None, f"{len(is_error):,} {what}, {needed:,} are needed")
    return GroupRate(name, name, len(is_error), mean_interval(is_error, person, person))


def _accepts(cells: GroupCells, names: Sequence[str], far: float, threshold: float) -> list[GroupRate]:
    needed = int(np.ceil(MIN_FALSE_ACCEPTS / far / ROUND_UP))
    rates = []
    for a, b in combinations_with_replacement(range(len(names)), 2):
        count = cells.count(a, b)
        if count < needed:
            reason = f"{count:,} impostor pairs, {needed:,} are needed"
            rates.append(GroupRate(names[a], names[b], count, None, reason))
        else:
            rates.append(GroupRate(names[a], names[b], count, cells.fmr(a, b, threshold)))
    return rates
