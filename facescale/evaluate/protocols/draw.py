"""Sample a verification protocol (balanced pairs in folds) from labelled images."""

from typing import NamedTuple

import numpy as np

from facescale.arrays import BoolArray, IntArray

# Names: I images, P identities, "room" how many different pairs something allows.


class DrawnPairs(NamedTuple):
    """Pairs of image indices.

    Attributes:
        a: int64 (N,), first image of each pair.
        b: int64 (N,), second image.
        is_same: bool (N,), genuine or not.
        fold: int64 (N,), fold of each pair, ascending; in a fold, genuine pairs come first.
    """

    a: IntArray
    b: IntArray
    is_same: BoolArray
    fold: IntArray


def make_pairs(ids: IntArray, num_pairs: int = 6000, num_folds: int = 10, seed: int = 0) -> DrawnPairs:
    """Sample ``num_pairs`` distinct pairs of images, half genuine, half impostor, in equal folds.

    No identity is in two folds, so a threshold is never tested on identities that it was chosen on. If the
    set is too small for that, all folds draw from all identities. Both kinds are spread over identities as
    evenly as their images allow, so that a few people with very many images do not dominate the figure. The
    same arguments return the same pairs.

    Args:
        ids: int64 (I,), identity of each image.
        num_pairs: how many, a multiple of ``2 * num_folds``.
        num_folds: number of folds, at least two.
        seed: random seed.

    Raises:
        ValueError: another number of pairs, fewer than two identities, or more pairs than the images allow.
    """
    if num_folds < 2 or num_pairs < 1 or num_pairs % (2 * num_folds):
        raise ValueError(
            f"{num_pairs} pairs do not make {num_folds} equal folds, half genuine and half impostor; "
            f"use at least two folds and a multiple of {2 * max(num_folds, 2)} pairs"
        )
    order = np.argsort(ids, kind="stable")
    _, starts_P, sizes_P = np.unique(ids[order], return_index=True, return_counts=True)
    people = _People(order, starts_P, sizes_P)
    rng = np.random.default_rng(seed)
    need = num_pairs // (2 * num_folds)
    groups = [people.subset(fold) for fold in _deal(sizes_P, num_folds, rng)]
    if all(group.genuine_room >= need and group.impostor_room >= need for group in groups):
        drawn = [(group.genuine(need, rng), group.impostors(need, rng)) for group in groups]
    else:
        most = min(people.genuine_room, people.impostor_room)
        if most < need * num_folds:
            raise ValueError(
                f"{num_pairs} pairs need {need * num_folds} of each kind, but {len(ids)} images of "
                f"{len(sizes_P)} identities allow {people.genuine_room} genuine and {people.impostor_room} "
                f"impostor pairs; {_advice(most, num_folds)}"
            )
        genuine = people.genuine(need * num_folds, rng)
        impostors = people.impostors(need * num_folds, rng)
        drawn = list(zip(np.split(genuine, num_folds), np.split(impostors, num_folds), strict=True))
    pairs_N2 = np.concatenate([pairs for both in drawn for pairs in both])
    return DrawnPairs(
        a=pairs_N2[:, 0],
        b=pairs_N2[:, 1],
        is_same=np.tile(np.repeat([True, False], need), num_folds),
        fold=np.repeat(np.arange(num_folds, dtype=np.int64), 2 * need),
    )


def most_pairs(ids: IntArray, num_folds: int, wanted: int) -> int:
    """Pairs that `make_pairs` can sample: ``wanted``, or as many as the images allow, one per fold at least.

    Args:
        ids: int64 (I,), identity of each image.
        num_folds: number of folds.
        wanted: the most that are of use.
    """
    _, starts_P, sizes_P = np.unique(np.sort(ids), return_index=True, return_counts=True)
    people = _People(np.arange(len(ids)), starts_P, sizes_P)
    of_a_kind = min(people.genuine_room, people.impostor_room, wanted // 2)
    return max(of_a_kind // num_folds, 1) * 2 * num_folds


def _advice(most: int, num_folds: int) -> str:
    """What to ask for where ``most`` pairs of each kind can be had."""
    if most >= num_folds:
        return f"ask for {most // num_folds * 2 * num_folds} (--num-pairs) or fewer, or give more images"
    if most >= 2:
        return f"ask for {most * 2} pairs in {_largest_divisor(most)} folds (--num-pairs, --folds)"
    return "give more images"


def _largest_divisor(number: int) -> int:
    """The most folds, of a few, that ``number`` pairs of each kind can be shared out to evenly."""
    return max(folds for folds in range(2, number + 1) if number % folds == 0)


def _deal(sizes_P: IntArray, num_folds: int, rng: np.random.Generator) -> list[IntArray]:
    """Identities of each fold, assigned round-robin by descending image count, ties in random order."""
    shuffled = rng.permutation(len(sizes_P))
    ranked = shuffled[np.argsort(-sizes_P[shuffled], kind="stable")]
    return [ranked[fold::num_folds] for fold in range(num_folds)]


class _People:
    """Some identities and their images: ``images[starts_P[p] : starts_P[p] + sizes_P[p]]``."""

    def __init__(self, images: IntArray, starts_P: IntArray, sizes_P: IntArray) -> None:
        self._images, self._starts_P, self._sizes_P = images, starts_P, sizes_P
        self._room_P = sizes_P * (sizes_P - 1) // 2
        self.genuine_room = int(self._room_P.sum())
        self.impostor_room = int((sizes_P.sum() ** 2 - (sizes_P**2).sum()) // 2)

    def subset(self, people: IntArray) -> "_People":
        return _People(self._images, self._starts_P[people], self._sizes_P[people])

    def genuine(self, need: int, rng: np.random.Generator) -> IntArray:
        """Different genuine pairs (need, 2) in random order."""
        quota_P = np.zeros_like(self._room_P)
        while missing := need - int(quota_P.sum()):
            open_ = rng.permutation(np.flatnonzero(quota_P < self._room_P))[:missing]
            share = max(missing // len(open_), 1)
            quota_P[open_] = np.minimum(quota_P[open_] + share, self._room_P[open_])
        rows = []
        for p in np.flatnonzero(quota_P):
            number = rng.choice(self._room_P[p], quota_P[p], replace=False)
            # Pairs (i, j) of an identity are numbered (0,1) (0,2) (1,2) (0,3) ...: j (j - 1) / 2 + i.
            j = ((1 + np.sqrt(1 + 8 * number)) / 2).astype(np.int64)
            i = number - j * (j - 1) // 2
            rows.append(self._images[self._starts_P[p] + np.stack([i, j], axis=1)])
        return rng.permutation(np.concatenate(rows))

    def impostors(self, need: int, rng: np.random.Generator) -> IntArray:
        """Different impostor pairs (need, 2) in random order."""
        if self.impostor_room <= 4 * need:  # rejection sampling would be slow for the last ones
            return rng.permutation(self._all_impostors())[:need]
        found = np.empty((0, 2), np.int64)
        while len(found) < need:
            p = rng.integers(len(self._sizes_P), size=2 * need)
            q = (p + rng.integers(1, len(self._sizes_P), size=2 * need)) % len(self._sizes_P)
            pick = [self._starts_P[x] + rng.integers(self._sizes_P[x]) for x in (p, q)]
            found = np.concatenate([found, np.sort(self._images[np.stack(pick, axis=1)], axis=1)])
            found = found[np.sort(np.unique(found, axis=0, return_index=True)[1])]
        return found[:need]

    def _all_impostors(self) -> IntArray:
        own = [self._images[s : s + n] for s, n in zip(self._starts_P, self._sizes_P, strict=True)]
        crossed = [np.stack(np.meshgrid(a, b), axis=-1) for i, a in enumerate(own) for b in own[:i]]
        return np.concatenate([pairs.reshape(-1, 2) for pairs in crossed])
