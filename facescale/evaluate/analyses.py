"""Analyses of measured scores: errors by group, by quality, and at thresholds of other sets."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from facescale.data.spec import split_options
from facescale.evaluate.attributes import Attribute, read_attribute
from facescale.evaluate.discard import error_discard
from facescale.evaluate.figures import Result
from facescale.evaluate.groups import pair_rates, search_rates, strictest_rate
from facescale.evaluate.scored import ScoredImages, ScoredSearch
from facescale.evaluate.transfer import transferred

_DISCARD_FAR = 1e-3  # at which discarding is judged, if the set supports it

R = TypeVar("R", bound=Result)


@dataclass(frozen=True)
class Grouping:
    """How images are divided into groups.

    Attributes:
        attribute: which image or person is in which group.
        far: false-accept rate (for a search: FPIR) whose threshold is taken; None: the strictest that half
            of the groups support.
    """

    attribute: Attribute
    far: float | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``FILE.csv?column=NAME&far=RATE``; both options may be left out.

        Raises:
            ValueError: a rate that is none, or what `read_attribute` refuses.
        """
        path, options = split_options(text, ("column", "far"))
        try:
            far = float(options["far"]) if "far" in options else None
        except ValueError:
            far = 0.0
        if far is not None and not 0 < far <= 1:
            raise ValueError(f"far={options['far']} of '{text}' is not a rate above 0 and at most 1")
        return cls(read_attribute(Path(path), options.get("column")), far)


def parse_quality(text: str) -> Attribute:
    """The column of qualities that ``FILE.csv?column=NAME`` names; ``column`` may be left out.

    Raises:
        ValueError: what `read_attribute` refuses.
    """
    path, options = split_options(text, ("column",))
    return read_attribute(Path(path), options.get("column"))


def analysed(
    results: Sequence[R], grouping: Grouping | None = None, quality: Attribute | None = None
) -> list[R]:
    """Results with what was asked for, and with each other's thresholds where there are several.

    A protocol that the groups or qualities do not fit says so in a note, unless they fit none.

    Args:
        results: of one model.
        grouping: groups of people.
        quality: of each image, in place of the length of its embedding.

    Raises:
        ValueError: no protocol with scores of images; groups or qualities that fit none; a false-accept rate
            that none has a threshold for.
    """
    done = list(results)
    if quality is not None:
        done = _where_it_fits(done, lambda one: with_discard(_having(one, "qualities"), quality))
    if grouping is not None:
        done = _where_it_fits(done, lambda one: with_groups(_having(one, "groups"), grouping))
    return with_transfer(done)


def _where_it_fits(results: Sequence[R], analysis: Callable[[R], R]) -> list[R]:
    done, refusals = [], []
    for result in results:
        try:
            done.append(analysis(result))
        except ValueError as error:  # the figures of this protocol stand all the same
            before = result.analyses.get("refused", {"notes": []})["notes"]
            done.append(_with(result, "refused", {"notes": [*before, str(error)]}))
            refusals.append(error)
    if len(refusals) == len(results):
        raise refusals[0]
    return done


def with_groups(result: R, grouping: Grouping) -> R:
    """A result with the errors of each group.

    Raises:
        ValueError: groups that do not fit its images, or a false-accept rate that it has no threshold for.
    """
    scored = result.scored
    assert scored is not None
    is_search = isinstance(scored, ScoredSearch)
    thresholds = _thresholds(result, "fpir" if is_search else "far")
    far = grouping.far
    if isinstance(scored, ScoredImages):
        thresholds = {rate: value for rate, value in thresholds.items() if scored.knows(value)}
        far = far or strictest_rate(scored, grouping.attribute, list(thresholds))
    far = far or max(thresholds, default=0.0)
    if far not in thresholds:
        have = ", ".join(f"{rate:g}" for rate in sorted(thresholds, reverse=True)) or "none"
        raise ValueError(
            f"'{result.name}' has no threshold at {'FPIR' if is_search else 'FAR'} {far:g} for its groups; "
            f"it has: {have}"
        )
    if isinstance(scored, ScoredSearch):
        found = search_rates(scored, grouping.attribute, far, thresholds[far])
    else:
        found = pair_rates(scored, grouping.attribute, far, thresholds[far])
    return _with(result, "groups", found.to_dict())


def with_discard(result: R, quality: Attribute | None = None) -> R:
    """A result of pairs with its error-versus-discard curve, at the rate that is nearest to 0.001.

    Nothing is added to a result without pairs, without a threshold, or without a false reject.
    """
    scored = result.scored
    if not isinstance(scored, ScoredImages):
        return result
    thresholds = _thresholds(result, "far")
    if not thresholds:
        return result
    far = min(thresholds, key=lambda rate: abs(math.log(rate / _DISCARD_FAR)))
    found = error_discard(scored, far, thresholds[far], quality)
    return result if found is None else _with(result, "erc", found.to_dict(), found.curve())


def with_transfer(results: Sequence[R]) -> list[R]:
    """Results with the errors of their pairs at the thresholds of the other results."""
    done = []
    for result in results:
        scored, rows = result.scored, []
        for other in results:
            if other is not result and isinstance(scored, ScoredImages):
                rows += transferred(other.name, _thresholds(other, "far"), scored)
        facts = {"rows": [row.to_dict() for row in rows], "notes": []}
        done.append(_with(result, "transfer", facts) if rows else result)
    return done


def _having(result: R, what: str) -> R:
    if result.scored is None:
        raise ValueError(
            f"'{result.name}' keeps no scores of single images, so {what} cannot be told apart; measure it "
            "without, or on pairs, all_pairs: or identification:"
        )
    return result


def _thresholds(result: Result, rate: str) -> dict[float, float]:
    prefix = f"threshold@{rate}="
    return {
        float(name.removeprefix(prefix)): value for name, value in result.figures() if name.startswith(prefix)
    }


def _with(result: R, name: str, facts: Mapping[str, Any], curve: Mapping[str, Any] | None = None) -> R:
    drawn = result.drawn if curve is None else {**result.drawn, name: dict(curve)}
    return replace(result, analyses={**result.analyses, name: dict(facts)}, drawn=drawn)  # type: ignore[type-var]
