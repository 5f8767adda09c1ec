"""Where the records of a .rec file start: read from its .idx file, or found by one pass over it."""

import warnings
from pathlib import Path

import numpy as np

from facescale.arrays import IntArray
from facescale.data.readers.recordio_format import (
    FRAME,
    HEADER,
    KIND_BIT,
    MAGIC,
    MAX_LENGTH,
    Words,
    is_set_header,
    padded,
)


def read_index(path: Path, size: int) -> tuple[IntArray, IntArray]:
    """Keys (ascending) and byte offsets from an .idx file of a record file of ``size`` bytes.

    Raises:
        ValueError: not lines of two integers, or offsets that cannot be records of such a file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # what NumPy says of text that is not a number
        try:
            numbers = np.fromstring(path.read_text("ascii"), np.int64, sep=" ")
        except (ValueError, DeprecationWarning):
            numbers = np.empty(0, np.int64)
    if not numbers.size or numbers.size % 2:
        raise ValueError(f"'{path}' is not an index (lines of key and offset); remove it to have it rebuilt")
    keys, offsets = numbers[0::2], numbers[1::2]
    order = np.argsort(keys, kind="stable")
    keys, offsets = keys[order], offsets[order]
    if offsets.min() < 0 or (offsets % 4).any() or (np.diff(keys) == 0).any():
        raise ValueError(f"'{path}' has repeated keys or impossible offsets; remove it to have it rebuilt")
    if offsets.max() + FRAME.size + HEADER.size > size:
        raise ValueError(
            f"'{path}' points to byte {offsets.max():,} of a record file of {size:,} bytes; that file is"
            " truncated, or the index belongs to another one"
        )
    return keys, offsets


def check_gapless(path: Path, words: Words, offsets: IntArray, gaps: IntArray) -> None:
    """Make sure that the index ``path`` leaves out no record between two that it names.

    Raises:
        ValueError: it does.
    """
    word = words[offsets // 4 + 1].astype(np.int64)
    is_whole = word >> KIND_BIT == 0  # a record in parts is longer than its first part tells
    missed = is_whole & ((FRAME.size + (word & MAX_LENGTH) + 3) // 4 * 4 != gaps)
    if missed.any():
        raise ValueError(
            f"'{path}' leaves out what follows the record at byte {offsets[missed][0]:,}; it is incomplete:"
            " copy it again, or remove it to have it rebuilt"
        )


def record_end(words: Words, offset: int) -> int:
    """Byte behind the record that starts at ``offset``, all its parts included; may lie beyond the file."""
    while True:
        word = int(words[offset // 4 + 1])
        offset += padded(FRAME.size + (word & MAX_LENGTH))
        if word >> KIND_BIT not in (1, 2) or offset + FRAME.size > words.nbytes:
            return offset


def gaps_between(offsets: IntArray, size: int) -> IntArray:
    """Bytes from each record to the next one in the file: its framed length, whatever its key."""
    gaps = np.diff(offsets, append=size)
    if gaps.min() > 0:  # keys and records in the same order, as packers write them
        return gaps
    order = np.argsort(offsets, kind="stable")
    gaps[order] = np.diff(offsets[order], append=size)
    return gaps


def rebuild_index(path: Path, words: Words) -> tuple[IntArray, IntArray]:
    """Keys (ascending) and byte offsets, int64 (N,) each, by one pass over the records.

    Raises:
        ValueError: a record is incomplete, or this is not a RecordIO file.
    """
    view, offset, size = words.data.cast("B"), 0, words.nbytes
    starts: list[int] = []
    inside = False
    while offset < size:
        magic, word = FRAME.unpack_from(view, offset) if offset + FRAME.size <= size else (0, 0)
        kind, end = word >> KIND_BIT, offset + padded(FRAME.size + (word & MAX_LENGTH))
        if magic != MAGIC or (kind in (2, 3)) != inside or end > size:
            raise ValueError(
                f"'{path}' has no complete record at byte {offset:,} of {size:,}; it is truncated or not"
                " a RecordIO file, copy it again"
            )
        if not inside:
            starts.append(offset)
        inside, offset = kind in (1, 2), end
    offsets = np.array(starts, np.int64)
    at = offsets // 4
    if is_set_header(words, 0, 0, int(gaps_between(offsets, size)[0])):
        return np.arange(len(offsets)), offsets
    keys = words[at + 4].astype(np.int64) | words[at + 5].astype(np.int64) << 32
    if len(np.unique(keys)) < len(keys):
        return np.arange(len(offsets)), offsets
    order = np.argsort(keys)
    return keys[order], offsets[order]
