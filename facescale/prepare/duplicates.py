"""Photos that are there more than once: equal bytes, and crops whose embeddings nearly agree."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray

REPEATED, CONFLICT, NEAR = "same file again", "same file under several identities", "near-duplicate"

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
    embeddings_ND: npt.NDArray[np.float32], threshold: float, block: int = 2048
) -> tuple[IntArray, IntArray]:
    """Pairs (first < second) of unit embeddings with cosine >= ``threshold``, in rising order.

    Memory is one block of cosines, time the square of N.
    """
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for start in range(0, len(embeddings_ND), block):
        rows = embeddings_ND[start : start + block]
        for below in range(start, len(embeddings_ND), block):
            row_P, column_P = np.nonzero(rows @ embeddings_ND[below : below + block].T >= threshold)
            first_P, second_P = row_P + start, column_P + below
            later = second_P > first_P
            firsts.append(first_P[later])
            seconds.append(second_P[later])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
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
