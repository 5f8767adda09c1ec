"""F2C's loader order: identity pairs and instance pairs."""

import numpy as np

from facescale.arrays import IntArray
from facescale.data.sampling.base import num_items
from facescale.data.sampling.by_identity import ByIdentity, random_below
from facescale.data.sampling.counter_rng import PAIRS, permuted
from facescale.data.sampling.draws import Draws, EveryImage


class PairSampler:
    """Two views x and y for F2C: of three items two are identity pairs and one is an instance pair.

    An identity pair shows two images of one identity, different ones where it has two; all identities come in
    turn, each time in another order. An instance pair shows two images of the epoch's order, whoever is on
    them: every image is there once per epoch (the last of an odd number is not), and an epoch has three
    items for two images.

    Args:
        ids: identity of every image.
        seed: of both orders and of the images of identity pairs.
        draws: the order of the instance pairs; every image once, if absent.
    """

    views = 2
    one_identity = False

    def __init__(self, ids: IntArray, seed: int, draws: Draws | None = None) -> None:
        self._seed = seed
        self._draws = draws or EveryImage(len(ids), seed)
        self._people = ByIdentity(ids)
        self.num_single = self._people.num_single

    def __len__(self) -> int:
        return num_items(len(self._draws), identity_pairs=True)

    def turns(self, epoch: int, position_B: IntArray) -> IntArray:
        """See ``base.turns_of``; 0 for identity pairs, whose images are drawn for each item."""
        block_B, place_B = position_B // 3, position_B % 3
        return np.where(place_B < 2, 0, self._draws.at(epoch, 2 * block_B).turn_B)

    def indices(self, epoch: int, position_B: IntArray) -> IntArray:
        """Reader indices (2, B) of x and y."""
        block_B, place_B = position_B // 3, position_B % 3
        identity_2B = self._identity_pairs(epoch, 2 * block_B + np.minimum(place_B, 1))
        place_2B = 2 * block_B + np.arange(2)[:, None]
        instance_2B = self._draws.at(epoch, place_2B).index_B
        return np.where(place_B < 2, identity_2B, instance_2B)

    def _identity_pairs(self, epoch: int, number_B: IntArray) -> IntArray:
        people = self._people
        round_B, place_B = np.divmod(number_B, people.present.size)
        group_B = np.empty_like(place_B)
        for turn in np.unique(round_B).tolist():
            now = round_B == turn
            group_B[now] = permuted(place_B[now], people.present.size, PAIRS, self._seed, epoch, turn)
        count_B = people.counts[group_B]
        first_B = random_below(count_B, PAIRS, self._seed, epoch, number_B, 0)
        step_B = 1 + random_below(np.maximum(count_B - 1, 1), PAIRS, self._seed, epoch, number_B, 1)
        pick_2B = np.stack([first_B, (first_B + step_B) % count_B])
        return people.images[people.starts[group_B] + pick_2B]
