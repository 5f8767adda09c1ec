"""Whether two models really differ on the same pairs: a bootstrap over people, paired pair by pair.

R resamples, P people, N pairs. Each resample draws P people with replacement; a pair of two people counts as
often as the product of their counts, a pair of one person as often as that person.
"""

from dataclasses import dataclass

import numpy as np

from facescale.arrays import FloatArray, IntArray

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
    if len({len(first), len(second), len(a), len(b)}) != 1:
        lengths = [len(first), len(second), len(a), len(b)]
        raise ValueError(
            f"columns of {lengths} pairs do not belong together; compare models on the same pairs"
        )
    gain_N = np.asarray(second, np.float64) - np.asarray(first, np.float64)
    _, number = np.unique(np.concatenate([a, b]), return_inverse=True)
    a, b = number.reshape(2, -1)
    generator, people = np.random.default_rng(seed), int(number.max()) + 1
    drawn = []
    for start in range(0, num_resamples, _BLOCK):
        count = min(_BLOCK, num_resamples - start)
        times_RP = generator.multinomial(people, np.full(people, 1 / people), count).astype(np.float32)
        weight_RN = times_RP[:, a] * np.where(a == b, np.float32(1), times_RP[:, b])
        drawn.append(weight_RN @ gain_N / np.maximum(weight_RN.sum(axis=1), 1))
    differences = np.concatenate(drawn)
    tail = min(float(np.mean(differences <= 0)), float(np.mean(differences >= 0)))
    low, high = np.quantile(differences, [0.025, 0.975])
    return Difference(
        float(gain_N.mean()), float(low), float(high), min(1.0, max(2 * tail, 1 / num_resamples))
    )
