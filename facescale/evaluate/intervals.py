"""Intervals of rates over pairs that share people: Wilson's, with the sample size that the pairs are worth.

Two pairs with a person in common tend to fail together, so a rate over pairs spreads more than a binomial
one. The variance adds the covariances of all pairs that share a person (the estimate for dyadic data of
Fafchamps and Gubert, 2007), and Wilson's interval is taken at the number of independent pairs with that
variance, as Fogliato, Patil and Perona do (arXiv 2306.01198). Two corrections make it hold for few people and
rare events: a person's residual is that of leaving the person out (jackknife), and the quantile is Student's
with the degrees of freedom that the residuals have (Satterthwaite). N pairs, P people, K events.
"""

from dataclasses import dataclass
from functools import cached_property
from statistics import NormalDist

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray

METHOD = "95 % Wilson intervals adjusted for pairs that share people (arXiv 2306.01198)"
CONFIDENCE = 0.95


@dataclass(frozen=True)
class RateInterval:
    """A rate and how certain it is.

    Attributes:
        rate: observed.
        low: lower end.
        high: upper end.
        effective: number of independent pairs that would make it as certain.
        freedom: degrees of freedom of that number; infinite where it is known.
    """

    rate: float
    low: float
    high: float
    effective: float
    freedom: float = np.inf

    def at(self, confidence: float) -> tuple[float, float]:
        """Low and high end at another confidence."""
        return wilson(self.rate, self.effective, confidence, self.freedom)


@dataclass(frozen=True)
class PairTotals:
    """Which people all pairs are of: in how many pairs each is, and how many pairs two people share.

    Attributes:
        num_pairs: N.
        per_person: (P,) pairs of each person; a pair of one person with itself counts once.
        square_sum: sum over two different people of the square of the number of their pairs.
        images: (P,) images of each person where all pairs of different people are compared, else None.
        others: (P,) images on the other side, where two sets of images are compared.
        codes: ascending codes of the pairs of people that there are, else None.
        sizes: number of pairs of each code.
    """

    num_pairs: int
    per_person: FloatArray
    square_sum: float
    images: FloatArray | None = None
    codes: IntArray | None = None
    sizes: IntArray | None = None
    others: FloatArray | None = None

    @classmethod
    def of_pairs(cls, first: IntArray, second: IntArray, num_people: int) -> "PairTotals":
        """Of a list of pairs, each of the people ``first`` and ``second`` (N,), numbered from 0."""
        codes, sizes = _counted(_codes(first, second, num_people), num_people**2)
        per_person = _touched(first, second, num_people)
        return cls(len(first), per_person, float(np.square(sizes.astype(float)).sum()), None, codes, sizes)

    @classmethod
    def of_all_impostors(cls, images: IntArray) -> "PairTotals":
        """Of every pair of images of two different people, of whom the images (P,) are counted."""
        k = images.astype(np.float64)
        total, squares = k.sum(), np.square(k).sum()
        shared = (squares**2 - np.sum(k**4)) / 2
        return cls(round((total**2 - squares) / 2), k * (total - k), float(shared), images=k)

    @classmethod
    def between(cls, images: IntArray, others: IntArray) -> "PairTotals":
        """Of every pair of an image of one set and one of another, of two different people.

        Args:
            images: (P,) images of each person in one set.
            others: (P,) in the other set, which shares no image with it.
        """
        a, b = images.astype(np.float64), others.astype(np.float64)
        per_person = a * (b.sum() - b) + b * (a.sum() - a)
        both = a @ b
        shared = (a @ a) * (b @ b) + both**2 - 2 * float(np.square(a * b).sum())
        return cls(round(a.sum() * b.sum() - both), per_person, float(shared), images=a, others=b)

    def shared(self, codes: IntArray) -> FloatArray:
        """Number of pairs of each pair of people, by its code."""
        if self.images is not None:
            low, high = np.divmod(codes, len(self.images))
            if self.others is None:
                return self.images[low] * self.images[high]
            return self.images[low] * self.others[high] + self.images[high] * self.others[low]
        assert self.codes is not None and self.sizes is not None
        found: FloatArray = self.sizes[np.searchsorted(self.codes, codes)].astype(np.float64)
        return found

    @cached_property
    def worst_effective(self) -> float:
        """Independent pairs that all are worth if pairs that share a person always agree."""
        shared = float(np.square(self.per_person).sum()) - self.square_sum
        return self.num_pairs**2 / max(shared, self.num_pairs)


def rate_interval(
    first: IntArray, second: IntArray, totals: PairTotals, confidence: float = CONFIDENCE
) -> RateInterval:
    """Share of pairs with an event, for example of false accepts.

    Args:
        first: (K,) first person of each pair with an event.
        second: (K,) second person; equal to the first in a genuine pair.
        totals: of all pairs.
        confidence: of the interval.
    """
    rate, people = len(first) / totals.num_pairs, len(totals.per_person)
    if not 0 < rate < 1:  # nothing varies: the data do not tell how much is shared
        effective = totals.worst_effective
        return RateInterval(rate, *wilson(rate, effective, confidence), effective)
    codes, events = np.unique(_codes(first, second, people), return_counts=True)
    twice = np.sum(events * (events - 2 * rate * totals.shared(codes))) + rate**2 * totals.square_sum
    left = np.maximum(totals.num_pairs - totals.per_person, 1)  # pairs without the person
    squares = np.square(residuals(first, second, totals) / left)
    variance = float(squares.sum() - twice / totals.num_pairs**2)
    freedom = np.inf
    if squares.any():
        # Three for normal residuals; of pairs of two people they have heavy tails (a few people match many).
        factor = 1 if totals.square_sum else 3
        freedom = float(factor * squares.sum() ** 2 / np.square(squares).sum())
    independent = rate * (1 - rate)
    effective = independent / max(variance, independent / totals.num_pairs)
    return RateInterval(rate, *wilson(rate, effective, confidence, freedom), effective, freedom)


def residuals(first: IntArray, second: IntArray, totals: PairTotals) -> FloatArray:
    """(P,) events of each person beyond those expected at the rate of all; arguments as `rate_interval`."""
    rate = len(first) / totals.num_pairs
    extra: FloatArray = _touched(first, second, len(totals.per_person)) - rate * totals.per_person
    return extra


def mean_interval(
    is_event: BoolArray, first: IntArray, second: IntArray, confidence: float = CONFIDENCE
) -> RateInterval:
    """Share of pairs (N,) with an event; people may have any numbers."""
    _, number = np.unique(np.concatenate([first, second]), return_inverse=True)
    a, b = number.reshape(2, -1)
    totals = PairTotals.of_pairs(a, b, int(number.max()) + 1)
    return rate_interval(a[is_event], b[is_event], totals, confidence)


def wilson(
    rate: float, count: float, confidence: float = CONFIDENCE, freedom: float = np.inf
) -> tuple[float, float]:
    """Wilson's score interval of a share ``rate`` of ``count`` independent trials.

    Args:
        rate: observed share.
        count: number of trials.
        confidence: of the interval.
        freedom: degrees of freedom of Student's quantile, where the variance is an estimate.
    """
    z = _student_quantile((1 + confidence) / 2, freedom)
    centre = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * np.sqrt(rate * (1 - rate) / count + z**2 / (4 * count**2))
    return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _student_quantile(share: float, freedom: float) -> float:
    """Quantile of Student's distribution, 3 or more degrees (Abramowitz and Stegun 26.7.5)."""
    z = NormalDist().inv_cdf(share)
    n = max(freedom, 3.0)
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * n**3)
    return z + (z**3 + z) / (4 * n) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * n**2) + third


def _codes(first: IntArray, second: IntArray, people: int) -> IntArray:
    """One number for two different people in either order; pairs of one person are left out."""
    differ = first != second
    low, high = np.minimum(first, second)[differ], np.maximum(first, second)[differ]
    codes: IntArray = low.astype(np.int64) * people + high
    return codes


def _counted(codes: IntArray, most: int) -> tuple[IntArray, IntArray]:
    """Ascending different ``codes`` below ``most``, and how often each is there."""
    if most > 4 * len(codes):
        return np.unique(codes, return_counts=True)
    counts = np.bincount(codes, minlength=1)  # of millions of pairs of few people, faster than a sort
    found = np.flatnonzero(counts)
    return found, counts[found]


def _touched(first: IntArray, second: IntArray, people: int) -> FloatArray:
    """(P,) number of pairs that each person is in."""
    other = second[first != second]
    counted = np.bincount(first, minlength=people) + np.bincount(other, minlength=people)
    return counted.astype(np.float64)
