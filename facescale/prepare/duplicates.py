"""Photos that are there more than once: equal bytes, and crops whose embeddings nearly agree."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray

REPEATED, CONFLICT, NEAR = "same file again", "same file under several identities", "near-duplicate"

Embeddings = npt.NDArray[np.float32]

# N images, P pairs, D embedding size


def exact_duplicates(digests: Mapping[str, str], identities: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Files of equal bytes that should go.

    Within an identity the first one, in the order of ``digests``, stays. A file that is there under several
    identities goes altogether, as one of the labels is wrong and nothing tells which.

    Args:
        digests: of the bytes, by key.
        identities: by key.

    Returns:
        (`REPEATED` or `CONFLICT`, key of the file it equals) by key.
    """
    groups: dict[str, list[str]] = defaultdict(list)
    for key, digest in digests.items():
        groups[digest].append(key)
    gone: dict[str, tuple[str, str]] = {}
    for keys in groups.values():
        conflict = len({identities[key] for key in keys}) > 1
        for key in keys if conflict else keys[1:]:
            other = next(k for k in keys if k != key and (not conflict or identities[k] != identities[key]))
            gone[key] = (CONFLICT if conflict else REPEATED, other)
    return gone


def near_pairs(
    embeddings_ND: Embeddings, threshold: float, block: int = 2048, most: int | None = None
) -> tuple[IntArray, IntArray]:
    """Pairs (first < second) of unit embeddings with cosine >= ``threshold``, in rising order.

    Memory is one block of cosines and the pairs, time the square of N.

    Args:
        embeddings_ND: unit rows.
        threshold: cosine.
        block: rows compared with as many at once.
        most: keep no more than the nearest so many pairs.
    """
    kept = _NearestPairs(threshold, most)
    for start in range(0, len(embeddings_ND), block):
        rows = embeddings_ND[start : start + block]
        for below in range(start, len(embeddings_ND), block):
            cosine = rows @ embeddings_ND[below : below + block].T
            if below == start:
                cosine[np.tril_indices(len(cosine))] = -2.0
            kept.add(cosine, start, below)
    return kept.in_order()


def pairs_between(
    one_ND: Embeddings, other_MD: Embeddings, threshold: float, block: int = 2048, most: int | None = None
) -> tuple[IntArray, IntArray]:
    """As `near_pairs`, of one image of each of two sets."""
    kept = _NearestPairs(threshold, most)
    for start in range(0, len(one_ND), block):
        for below in range(0, len(other_MD), block):
            kept.add(one_ND[start : start + block] @ other_MD[below : below + block].T, start, below)
    return kept.in_order()


class _NearestPairs:
    """Pairs above a threshold, which rises when there are more than can be kept."""

    def __init__(self, threshold: float, most: int | None) -> None:
        self._threshold, self._most = threshold, most
        self._parts: list[tuple[IntArray, IntArray, Embeddings]] = []
        self._count = 0

    def add(self, cosine_RC: Embeddings, first_row: int, first_column: int) -> None:
        row_P, column_P = np.nonzero(cosine_RC >= self._threshold)
        self._parts.append((row_P + first_row, column_P + first_column, cosine_RC[row_P, column_P]))
        self._count += len(row_P)
        if self._most is not None and self._count > 2 * self._most:
            self._parts = [self._nearest()]
            self._count, self._threshold = self._most, float(self._parts[0][2].min(initial=2.0))

    def _nearest(self) -> tuple[IntArray, IntArray, Embeddings]:
        empty = np.empty(0, np.int64)
        parts = [(empty, empty, np.empty(0, np.float32)), *self._parts]
        first, second, cosine = (np.concatenate(column) for column in zip(*parts, strict=True))
        order = np.lexsort((second, first, -cosine))[: self._most]
        return first[order], second[order], cosine[order]

    def in_order(self) -> tuple[IntArray, IntArray]:
        first, second, _ = self._nearest()
        order = np.lexsort((second, first))
        return first[order], second[order]


def thin_out(first_P: IntArray, second_P: IntArray, worth_N: Sequence[tuple[float, ...]]) -> dict[int, int]:
    """Choose what to drop so that no pair is left whole: the best of every neighbourhood stays.

    Args:
        first_P: one image of each pair.
        second_P: the other.
        worth_N: what makes an image worth keeping; of equal ones the first stays.

    Returns:
        Image that stays, by image that goes.
    """
    near: dict[int, list[int]] = defaultdict(list)
    for a, b in zip(first_P.tolist(), second_P.tolist(), strict=True):
        near[a].append(b)
        near[b].append(a)
    gone: dict[int, int] = {}
    for image in sorted(near, key=lambda n: ([-value for value in worth_N[n]], n)):
        if image not in gone:
            for other in near[image]:
                gone.setdefault(other, image)
    return gone
