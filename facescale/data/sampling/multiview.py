"""Samplers whose items hold several images: a query with keys (AttFC), identity and instance pairs (F2C)."""

import random
from threading import Lock

import numpy as np
import numpy.typing as npt

from facescale.data.sampling.base import ImageSampler, Int64s, Sampler
from facescale.data.sampling.counter_rng import KEYS, ORDER, PAIRS, hash64, permuted

# V views, B items, N images, P identities


class _ByIdentity:
    """Images grouped by identity.

    Args:
        ids: identity of every image, (N,).
    """

    def __init__(self, ids: npt.NDArray[np.int64]) -> None:
        self.images = ids.argsort(kind="stable")
        self.present, self.starts, self.counts = np.unique(
            ids[self.images], return_index=True, return_counts=True
        )
        gapless = self.present.size == self.present[-1] + 1
        self.group = ids if gapless else np.searchsorted(self.present, ids)  # of every image
        self.rank = np.empty_like(self.images)  # place of every image among those of its identity
        self.rank[self.images] = np.arange(ids.size) - self.starts.repeat(self.counts)

    @property
    def num_single(self) -> int:
        """Identities with one image."""
        return int(np.count_nonzero(self.counts == 1))


def _below(limit_B: Int64s, *streams: int | Int64s) -> Int64s:
    """A random number in [0, limit) for each item, a function of ``streams``."""
    below: Int64s = (hash64(*streams) % limit_B.astype(np.uint64)).astype(np.int64)
    return below


class AttentionSampler:
    """Every image once per epoch as the query, each with keys: other images of its identity.

    Keys are drawn without replacement; where the identity has fewer other images than keys, they come again
    in turn; where it has none, the keys are the query (``num_single`` counts these identities; the batch's
    ``repeats`` tells the images that want stronger augmentation).

    Args:
        ids: identity of every image.
        keys: images beside the query.
        seed: of order and keys.
    """

    one_identity = True

    def __init__(self, ids: npt.NDArray[np.int64], keys: int, seed: int) -> None:
        self.views = 1 + keys
        self._seed = seed
        self._people = _ByIdentity(ids)
        self.num_single = self._people.num_single

    def __len__(self) -> int:
        return self._people.images.size

    def indices(self, epoch: int, position_B: Int64s) -> Int64s:
        """Reader indices (1 + keys, B): the query, then its keys."""
        people = self._people
        query_B = permuted(position_B, len(self), ORDER, self._seed, epoch)
        group_B, rank_B = people.group[query_B], people.rank[query_B]
        others_B = people.counts[group_B] - 1
        chosen_B = np.minimum(others_B, self.views - 1)  # distinct keys
        picks: list[Int64s] = []
        for number in range(self.views - 1):  # Floyd's sampling without replacement, all items at once
            last_B = np.maximum(others_B - chosen_B + number, 0)
            pick_B = _below(last_B + 1, KEYS, self._seed, epoch, query_B, number)
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

    def __init__(self, ids: npt.NDArray[np.int64], keys: int, seed: int) -> None:
        self.views = 1 + keys
        self._seed = seed
        self._people = _ByIdentity(ids)
        self.num_single = self._people.num_single
        self._lock = Lock()  # workers ask for replacements of unreadable images
        self._epoch = -1
        self._random = random.Random()
        self._drawn: list[list[int]] = []

    def __len__(self) -> int:
        return self._people.images.size

    def indices(self, epoch: int, position_B: Int64s) -> Int64s:
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


class PairSampler:
    """Two views x and y for F2C: of three items two are identity pairs and one is an instance pair.

    An identity pair shows two images of one identity, different ones where it has two; all identities come in
    turn, each time in another order. An instance pair shows two images of the epoch's order, whoever is on
    them: every image is there once per epoch (the last of an odd number is not), and an epoch has three
    items for two images.

    Args:
        ids: identity of every image.
        seed: of both orders and of the images of identity pairs.
    """

    views = 2
    one_identity = False

    def __init__(self, ids: npt.NDArray[np.int64], seed: int) -> None:
        self._seed = seed
        self._people = _ByIdentity(ids)
        self.num_single = self._people.num_single

    def __len__(self) -> int:
        return num_items(self._people.images.size, identity_pairs=True)

    def indices(self, epoch: int, position_B: Int64s) -> Int64s:
        """Reader indices (2, B) of x and y."""
        block_B, place_B = position_B // 3, position_B % 3
        identity_2B = self._identity_pairs(epoch, 2 * block_B + np.minimum(place_B, 1))
        place_2B = 2 * block_B + np.arange(2)[:, None]
        instance_2B = permuted(place_2B, self._people.images.size, ORDER, self._seed, epoch)
        return np.where(place_B < 2, identity_2B, instance_2B)

    def _identity_pairs(self, epoch: int, number_B: Int64s) -> Int64s:
        people = self._people
        round_B, place_B = np.divmod(number_B, people.present.size)
        group_B = np.empty_like(place_B)
        for turn in np.unique(round_B).tolist():
            now = round_B == turn
            group_B[now] = permuted(place_B[now], people.present.size, PAIRS, self._seed, epoch, turn)
        count_B = people.counts[group_B]
        first_B = _below(count_B, PAIRS, self._seed, epoch, number_B, 0)
        step_B = 1 + _below(np.maximum(count_B - 1, 1), PAIRS, self._seed, epoch, number_B, 1)
        pick_2B = np.stack([first_B, (first_B + step_B) % count_B])
        return people.images[people.starts[group_B] + pick_2B]


def num_items(num_images: int, identity_pairs: bool) -> int:
    """Items of an epoch: one an image, or three for two images where pairs are needed."""
    return 3 * (num_images // 2) if identity_pairs else num_images


def make_sampler(
    ids: npt.NDArray[np.int64],
    seed: int,
    *,
    keys: int = 0,
    identity_pairs: bool = False,
    released: bool = False,
) -> Sampler:
    """The sampler that gives what a head needs (``heads.Needs``).

    Args:
        ids: identity of every image.
        seed: of everything drawn.
        keys: images of the identity beside each query.
        identity_pairs: identity and instance pairs instead.
        released: draw query and keys as AttFC's release does.
    """
    if identity_pairs:
        return PairSampler(ids, seed)
    if keys:
        return (ReleasedAttentionSampler if released else AttentionSampler)(ids, keys, seed)
    return ImageSampler(len(ids), seed)
