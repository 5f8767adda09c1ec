"""A fixed part of a protocol, for a quick look: the first people, whole, or the first pairs of each fold."""

import numpy as np

from facescale.arrays import BoolArray, IntArray


def first_people(ids: IntArray, limit: int | None) -> IntArray:
    """Indices of all images of the first people by number, as many people as fit into ``limit`` images.

    Args:
        ids: int64 (N,), identity of each image.
        limit: most images; None takes all.

    Raises:
        ValueError: the first person has more images than that.
    """
    if limit is None:
        return np.arange(len(ids))
    people, counts = np.unique(ids, return_counts=True)
    kept = people[np.cumsum(counts) <= limit]
    if not len(kept):
        raise ValueError(
            f"a limit of {limit} images is less than the {counts[0]} of the first person; use a larger one"
        )
    return np.flatnonzero(np.isin(ids, kept))


def first_pairs(is_same: BoolArray, fold: IntArray, limit: int) -> IntArray:
    """Indices of the first pairs of each kind in every fold, ``limit`` in all, ascending."""
    rank = np.empty(len(fold), np.int64)
    for group in {*zip(fold.tolist(), is_same.tolist(), strict=True)}:
        members = np.flatnonzero((fold == group[0]) & (is_same == group[1]))
        rank[members] = np.arange(len(members))
    return np.sort(np.lexsort((fold, rank))[:limit])


def linked(num: int, a: IntArray, b: IntArray) -> IntArray:
    """Group number of each of ``num`` items, the lowest item of its group; a[i] and b[i] are in one group."""
    group = np.arange(num)
    while True:
        lower = np.minimum(group[a], group[b])
        before = group.copy()
        np.minimum.at(group, a, lower)
        np.minimum.at(group, b, lower)
        group = group[group]
        if (group == before).all():
            return group


def part_note(used: int, total: int, what: str, rule: str) -> tuple[str, ...]:
    """The remark of a limited result; nothing where nothing was left out."""
    if used == total:
        return ()
    return (f"limited to {used:,} of {total:,} {what} ({rule}); not comparable with published figures",)
