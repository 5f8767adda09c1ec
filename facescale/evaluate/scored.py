"""What was scored, image by image: for figures by group, by quality and at thresholds of other sets.

N images, K pairs, M mated probes, U probes of strangers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from facescale.arrays import BoolArray, FloatArray, IntArray
from facescale.evaluate.identity_points import ScoredPairs
from facescale.evaluate.intervals import PairTotals, RateInterval
from facescale.evaluate.protocols.pairs import Pairs


@dataclass(frozen=True)
class ImagePairs:
    """Scored pairs of images of one kind.

    Attributes:
        scores: (K,) cosines.
        first: (K,) index of an image.
        second: (K,) index of the other one.
    """

    scores: FloatArray
    first: IntArray
    second: IntArray

    def __len__(self) -> int:
        return len(self.scores)

    def from_score(self, threshold: float) -> BoolArray:
        """(K,) whether a pair is accepted."""
        accepted: BoolArray = self.scores >= threshold
        return accepted


@dataclass(frozen=True)
class ScoredImages:
    """The pairs of a protocol.

    Attributes:
        key: index of an image -> its name.
        person_N: int64 (N,), number of the person on each image.
        norm_N: (N,), length of the raw embedding; NaN where an image is in no pair.
        genuine: all genuine pairs.
        impostor: all impostor pairs of a list; where every pair is compared, those with the highest scores.
        is_every_pair: whether each image was compared with each other one.
    """

    key: Callable[[int], str] = field(repr=False)
    person_N: IntArray
    norm_N: FloatArray
    genuine: ImagePairs
    impostor: ImagePairs
    is_every_pair: bool = False

    @classmethod
    def of_list(
        cls, pairs: Pairs, person_N: IntArray, scores: FloatArray, norm_2K: FloatArray
    ) -> "ScoredImages":
        """The K pairs of a list.

        Args:
            pairs: the list.
            person_N: number of the person on each image.
            scores: (K,) cosines.
            norm_2K: length of the raw embedding of the first image of each pair, then of the second.
        """
        norm_N = np.full(len(pairs.images), np.nan)
        norm_N[np.concatenate([pairs.a, pairs.b])] = norm_2K
        genuine, impostor = (
            ImagePairs(scores[kind], pairs.a[kind], pairs.b[kind]) for kind in (pairs.is_same, ~pairs.is_same)
        )
        return cls(pairs.images.key, person_N, norm_N, genuine, impostor)

    @property
    def used(self) -> IntArray:
        """Indices of the images that are in a pair."""
        return np.flatnonzero(~np.isnan(self.norm_N))

    @property
    def num_impostor(self) -> int:
        """Number of impostor pairs, with those whose scores were not kept."""
        return self.impostor_people.totals.num_pairs

    @cached_property
    def genuine_people(self) -> ScoredPairs:
        """The genuine pairs, with the person of each."""
        person = self.person_N[self.genuine.first]
        return ScoredPairs.of(self.genuine.scores, person, person)

    @cached_property
    def impostor_people(self) -> ScoredPairs:
        """The impostor pairs, with the people of each."""
        pairs = self.impostor
        a, b = self.person_N[pairs.first], self.person_N[pairs.second]
        if not self.is_every_pair:
            return ScoredPairs.of(pairs.scores, a, b)
        people, number, counts = np.unique(self.person_N, return_inverse=True, return_counts=True)
        order = np.argsort(-pairs.scores, kind="stable")
        a, b = number[pairs.first[order]], number[pairs.second[order]]
        return ScoredPairs(pairs.scores[order], a, b, PairTotals.of_all_impostors(counts), people)

    def knows(self, threshold: float) -> bool:
        """Whether all impostor pairs that a threshold accepts were kept."""
        pairs = self.impostor
        complete = len(pairs) == self.num_impostor
        return complete or (len(pairs) > 0 and float(pairs.scores.min()) < threshold)

    def fmr(self, threshold: float) -> RateInterval:
        """Share of the impostor pairs that a threshold accepts, if it is known; see `knows`."""
        return self.impostor_people.from_score(threshold)

    def tar(self, threshold: float) -> RateInterval:
        """Share of the genuine pairs that a threshold accepts."""
        return self.genuine_people.from_score(threshold)


@dataclass(frozen=True)
class ScoredSearch:
    """The probes of an identification with a threshold.

    Attributes:
        key: index of an image -> its name.
        person_N: int64 (N,), number of the person on each image.
        norm_N: (N,), length of the raw embedding.
        mated: (M,), index of each probe whose person is enrolled.
        mate_M: (M,), similarity of the mate where it came first, else -2.
        strangers: (U,), index of each of the others.
        other_U: (U,), highest similarity of each.
    """

    key: Callable[[int], str] = field(repr=False)
    person_N: IntArray
    norm_N: FloatArray
    mated: IntArray
    mate_M: FloatArray
    strangers: IntArray
    other_U: FloatArray

    @property
    def used(self) -> IntArray:
        """Indices of the probes."""
        return np.sort(np.concatenate([self.mated, self.strangers]))


Scored = ScoredImages | ScoredSearch
