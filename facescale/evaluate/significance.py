"""Whether two models really differ on the same pairs: a bootstrap over people, paired pair by pair.

R resamples, P people, N pairs. Each resample draws P people with replacement; a pair of two people counts as
often as the product of their counts, a pair of one person as often as that person.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.roc import MIN_FALSE_ACCEPTS, ROUND_UP

_BLOCK = 100  # resamples at once


@dataclass(frozen=True)
class Difference:
    """Difference of a share between two models on the same pairs, second less first.

    Attributes:
        value: observed.
        low: lower end of its 95 % interval.
        high: upper end.
        p: chance of a difference at least as large in either direction if there were none.
    """

    value: float
    low: float
    high: float
    p: float

    @property
    def is_significant(self) -> bool:
        """At the level of 5 %."""
        return self.p < 0.05


def paired_difference(
    first: FloatArray, second: FloatArray, a: IntArray, b: IntArray, num_resamples: int = 2000, seed: int = 0
) -> Difference:
    """Compare two models by a share over pairs, for example of right decisions.

    Args:
        first: (N,) 1 where the first model is right, else 0.
        second: (N,) the same of the second.
        a: (N,) first person of each pair.
        b: (N,) second person, equal to the first in a genuine pair.
        num_resamples: R.
        seed: of the resamples.

    Raises:
        ValueError: columns that differ in length.
    """
    _check_lengths(first, second, a, b)
    gain_N = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    drawn = [
        weight_RN @ gain_N / np.maximum(weight_RN.sum(axis=1), 1)
        for weight_RN in _weights(a, b, num_resamples, seed)
    ]
    return _difference(float(gain_N.mean()), np.concatenate(drawn), num_resamples)


def paired_tar_difference(
    first: FloatArray,
    second: FloatArray,
    is_same: BoolArray,
    a: IntArray,
    b: IntArray,
    far: float,
    num_resamples: int = 1000,
    seed: int = 0,
) -> Difference:
    """Compare two models by TAR at a false-accept rate.

    In each resample both models get a threshold of their own for the rate, so its uncertainty is counted too.

    Args:
        first: (N,) scores of the first model.
        second: (N,) scores of the second.
        is_same: (N,) whether a pair is genuine.
        a: (N,) first person of each pair.
        b: (N,) second person.
        far: the rate.
        num_resamples: R.
        seed: of the resamples.

    Raises:
        ValueError: columns that differ in length, or a rate that the set has too few impostor pairs for.
    """
    _check_lengths(first, second, is_same, a, b)
    is_same = np.asarray(is_same, bool)
    impostors = int((~is_same).sum())
    if not 0 < far <= 1 or far * impostors * ROUND_UP < MIN_FALSE_ACCEPTS or impostors == len(is_same):
        raise ValueError(
            f"FAR {far:g} cannot be compared on {len(is_same) - impostors:,} genuine and {impostors:,} "
            f"impostor pairs; it takes genuine pairs and {MIN_FALSE_ACCEPTS} false accepts"
        )
    models = [_TarAtFar(np.asarray(scores, np.float64), is_same, far) for scores in (first, second)]
    one_RN = np.ones((1, len(is_same)), np.float32)
    observed = float((models[1].of(one_RN) - models[0].of(one_RN))[0])
    drawn = [
        models[1].of(weight_RN) - models[0].of(weight_RN) for weight_RN in _weights(a, b, num_resamples, seed)
    ]
    return _difference(observed, np.concatenate(drawn), num_resamples)


class _TarAtFar:
    """TAR of one model at a false-accept rate, under weights of the pairs."""

    def __init__(self, scores: FloatArray, is_same: BoolArray, far: float) -> None:
        impostor, genuine = np.flatnonzero(~is_same), np.flatnonzero(is_same)
        self._impostor = impostor[np.argsort(-scores[impostor], kind="stable")]
        self._genuine = genuine[np.argsort(-scores[genuine], kind="stable")]
        ranked = scores[self._impostor]
        # Of impostors that score alike, all or none are accepted: the place behind each run of them.
        self._ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
        # How many genuine pairs score above the impostors of the next run.
        nexts = np.append(ranked[self._ends[:-1] + 1], -np.inf)
        above = np.searchsorted(-scores[self._genuine], -nexts, side="left")
        none_accepted = np.searchsorted(-scores[self._genuine], -ranked[0], side="left")
        self._above, self._far = np.append(none_accepted, above), far

    def of(self, weight_RN: FloatArray) -> FloatArray:
        """TAR (R,), at the lowest threshold whose false-accept rate is at most the one asked for."""
        accepted_RK = np.cumsum(weight_RN[:, self._impostor], axis=1, dtype=np.float64)
        allowed_R1 = self._far * accepted_RK[:, -1:] * ROUND_UP
        runs_R = (accepted_RK[:, self._ends] <= allowed_R1).sum(axis=1)
        genuine_RG = np.cumsum(weight_RN[:, self._genuine], axis=1, dtype=np.float64)
        found_RG = np.concatenate([np.zeros((len(weight_RN), 1)), genuine_RG], axis=1)
        hits_R = found_RG[np.arange(len(weight_RN)), self._above[runs_R]]
        tar_R: FloatArray = hits_R / np.maximum(genuine_RG[:, -1], 1)
        return tar_R


def _check_lengths(*columns: IntArray | FloatArray | BoolArray) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) != 1:
        raise ValueError(
            f"columns of {lengths} pairs do not belong together; compare models on the same pairs"
        )


def _weights(a: IntArray, b: IntArray, num_resamples: int, seed: int) -> Iterator[FloatArray]:
    """Yield how often each pair counts, float32 (r, N), in resamples of the people."""
    _, number = np.unique(np.concatenate([a, b]), return_inverse=True)
    a, b = number.reshape(2, -1)
    generator, people = np.random.default_rng(seed), int(number.max()) + 1
    for start in range(0, num_resamples, _BLOCK):
        count = min(_BLOCK, num_resamples - start)
        times_RP = generator.multinomial(people, np.full(people, 1 / people), count).astype(np.float32)
        yield times_RP[:, a] * np.where(a == b, np.float32(1), times_RP[:, b])


def _difference(observed: float, drawn_R: FloatArray, num_resamples: int) -> Difference:
    tail = min(float(np.mean(drawn_R <= 0)), float(np.mean(drawn_R >= 0)))
    low, high = np.quantile(drawn_R, [0.025, 0.975])
    return Difference(observed, float(low), float(high), min(1.0, max(2 * tail, 1 / num_resamples)))
