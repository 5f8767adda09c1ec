"""AttFC's loader order: a query and key images of its identity."""

import random
from threading import Lock

import numpy as np

from facescale.arrays import IntArray
from facescale.data.sampling.by_identity import ByIdentity, random_below
from facescale.data.sampling.counter_rng import KEYS
from facescale.data.sampling.draws import Draws, EveryImage, turn_epoch


class AttentionSampler:
    """Every image once per epoch as the query, each with keys: other images of its identity.

    Keys are drawn without replacement; where the identity has fewer other images than keys, they come again
    in turn; where it has none, the keys are the query (``num_single`` counts these identities; the batch's
    ``repeats`` tells the images that want stronger augmentation).

    Args:
        ids: identity of every image.
        keys: images beside the query.
        seed: of order and keys.
        draws: the order of the queries; every image once, if absent.
    """

    one_identity = True

    def __init__(self, ids: IntArray, keys: int, seed: int, draws: Draws | None = None) -> None:
        self.views = 1 + keys
        self._seed = seed
        self._draws = draws or EveryImage(len(ids), seed)
        self._people = ByIdentity(ids)
        self.num_single = self._people.num_single

    def __len__(self) -> int:
        return len(self._draws)

    def turns(self, epoch: int, position_B: IntArray) -> IntArray:
        """See ``base.turns_of``."""
        return self._draws.at(epoch, position_B).turn_B

    def indices(self, epoch: int, position_B: IntArray) -> IntArray:
        """Reader indices (1 + keys, B): the query, then its keys."""
        people = self._people
        query_B, turn_B = self._draws.at(epoch, position_B)
        turn_of_B = turn_epoch(epoch, turn_B)
        group_B, rank_B = people.group[query_B], people.rank[query_B]
        others_B = people.counts[group_B] - 1
        chosen_B = np.minimum(others_B, self.views - 1)  # distinct keys
        picks: list[IntArray] = []
        for number in range(self.views - 1):  # Floyd's sampling without replacement, all items at once
            last_B = np.maximum(others_B - chosen_B + number, 0)
            pick_B = random_below(last_B + 1, KEYS, self._seed, turn_of_B, query_B, number)
            for earlier_B in picks:
                pick_B = np.where(pick_B == earlier_B, last_B, pick_B)
            turn_B = number % np.maximum(chosen_B, 1)
            for again, earlier_B in enumerate(picks):  # past the distinct ones: those again
                pick_B = np.where((number >= chosen_B) & (turn_B == again), earlier_B, pick_B)
            picks.append(pick_B)
        pick_KB = np.stack(picks)
        pick_KB = np.where(others_B == 0, 0, pick_KB + (pick_KB >= rank_B))  # leave out the query itself
        keys_KB = people.images[people.starts[group_B] + pick_KB]
        return np.concatenate([query_B[None], keys_KB])


class ReleasedAttentionSampler:
    """Draws as AttFC's release does: any image with replacement, keys with replacement, the query among them.

    The position only counts the draws. They come from Python's generator, seeded with seed + epoch, one after
    the other: a resumed epoch repeats those before it.

    Args:
        ids: identity of every image.
        keys: images beside the query.
        seed: of Python's generator.
    """

    one_identity = True

    def __init__(self, ids: IntArray, keys: int, seed: int) -> None:
        self.views = 1 + keys
        self._seed = seed
        self._people = ByIdentity(ids)
        self.num_single = self._people.num_single
        self._lock = Lock()  # workers ask for replacements of unreadable images
        self._epoch = -1
        self._random = random.Random()
        self._drawn: list[list[int]] = []

    def __len__(self) -> int:
        return self._people.images.size

    def indices(self, epoch: int, position_B: IntArray) -> IntArray:
        """Reader indices (1 + keys, B): the query, then its keys."""
        with self._lock:
            if epoch != self._epoch:
                self._epoch, self._random, self._drawn = epoch, random.Random(self._seed + epoch), []
            while len(self._drawn) <= position_B.max(initial=-1):
                self._drawn.append(self._draw())
            return np.array([self._drawn[position] for position in position_B.tolist()]).T

    def _draw(self) -> list[int]:
        people = self._people
        self._random.choices([0])  # the release first picks one of its data sets
        place = self._random.sample(range(len(self)), 1)[0]
        query = int(people.images[place])
        group = int(people.group[query])
        start, count = int(people.starts[group]), int(people.counts[group])
        frames = [0] * (self.views - 1)
        if count > 1:
            frames = self._random.choices(range(count), k=self.views - 1)
        return [query, *(int(people.images[start + frame]) for frame in frames)]
