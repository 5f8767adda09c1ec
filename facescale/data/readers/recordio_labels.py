"""Whose image each record of a .rec file is."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from facescale.arrays import BoolArray, IntArray
from facescale.data.readers.recordio_format import EXACT_FLOAT32, LABELS_ONLY, MAGIC, Words
from facescale.data.readers.recordio_words import Gaps, Keys, MappedWords


def record_labels(path: Path, words: MappedWords, keys: Keys, offsets: IntArray) -> IntArray:
    """The label that each record itself carries, int64 (N,).

    Raises:
        ValueError: there is no record where the index has it, or its label is not a whole number.
    """
    labels = np.empty(len(offsets), np.int64)
    for part in words.blocks(len(offsets)):
        labels[part] = _labels_of(path, words.values, keys[part], offsets[part])
    return labels


def _labels_of(path: Path, words: Words, keys: Keys, offsets: IntArray) -> npt.NDArray[np.float64]:
    at = offsets // 4
    broken = words[at] != MAGIC
    if broken.any():
        first = int(np.argmax(broken))
        raise ValueError(
            f"'{path}' has no record {keys[first]} at byte {offsets[first]:,}, as the index has it;"
            " the index belongs to another file (remove it to have it rebuilt) or the file is damaged"
        )
    floats = words.view(np.float32)
    several = words[at + 2] > 0
    # A record without labels may be the last thing in the file; its word 8 is looked at, but not used.
    labels = np.where(several, floats[np.minimum(at + 8, len(words) - 1)], floats[at + 3]).astype(np.float64)
    wrong = ~((labels >= 0) & (labels < EXACT_FLOAT32) & (labels == np.floor(labels)))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"record {keys[first]} of '{path}' has the label {labels[first]:g}; a label is a whole"
            f" number from 0 to {EXACT_FLOAT32 - 1:,} (float32 merges identities beyond), so repack the set"
        )
    return labels


def insightface_labels(
    path: Path, words: MappedWords, keys: Keys, offsets: IntArray, gaps: Gaps
) -> tuple[Keys, IntArray, IntArray]:
    """Keys, offsets and labels, int64 (N,), of the images of a set that starts with the record of counts.

    Raises:
        ValueError: the counts are not those of the file, or a label is not a whole number.
    """
    floats = words.values.view(np.float32)
    first, end = floats[offsets[0] // 4 + 8 :][:2].tolist()
    # Counts in float32 are rounded beyond 2^24 images, so the kind of a record shows in its length instead.
    is_identity = np.concatenate([gaps.of(part) == LABELS_ONLY for part in words.blocks(len(offsets))])
    is_identity[0] = False
    is_image = ~is_identity
    is_image[0] = False
    num_images, num_ids = int(is_image.sum()), int(is_identity.sum())
    if _far_apart(num_images, first - 1) or (num_ids and _far_apart(num_ids, end - first)):
        raise ValueError(
            f"record 0 of '{path}' tells of {first - 1:.0f} images and {end - first:.0f} identities, but"
            f" {num_images} and {num_ids} are there; the file is truncated or its index is another file's"
        )
    ranges = offsets[is_identity] // 4 + 8
    keys, offsets = _chosen(keys, is_image), offsets[is_image]
    starts, ends = floats[ranges].astype(np.int64), floats[ranges + 1].astype(np.int64)
    if not _tile(starts, ends, keys):
        return keys, offsets, record_labels(path, words, keys, offsets)
    # One look per identity instead of one per image: the other way touches every page of the file.
    sizes = ends - starts
    heads = starts[sizes > 0] - 1
    labels = record_labels(path, words, np.asarray(keys)[heads], offsets[heads])
    return keys, offsets, np.repeat(labels, sizes[sizes > 0])


def _chosen(keys: Keys, mask: BoolArray) -> Keys:
    """The keys of the records that a mask names; a range where they are one still."""
    at = np.flatnonzero(mask)
    if isinstance(keys, range) and len(at) and int(at[-1]) - int(at[0]) == len(at) - 1:
        return keys[int(at[0]) : int(at[-1]) + 1]
    return np.asarray(keys)[at]


def _far_apart(found: int, stated: float) -> bool:
    """Whether a count is off by more than 1 %: packers leave out images that they cannot read."""
    return abs(found - stated) > 0.01 * stated


def _tile(starts: IntArray, ends: IntArray, keys: Keys) -> bool:
    """Whether the ranges of the identities cover exactly the keys 1..N of the images, in order."""
    num_images = len(keys)
    return (
        num_images + 1 < EXACT_FLOAT32
        and len(starts) > 0
        and bool((starts <= ends).all())
        and np.array_equal(starts, np.append(1, ends[:-1]))
        and int(ends[-1]) == num_images + 1
        and np.array_equal(keys, np.arange(1, num_images + 1))
    )
