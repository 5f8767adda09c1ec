"""Where the records of a .rec file start: read from its .idx file, or found by one pass over it."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

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
from facescale.data.readers.recordio_text import index_numbers
from facescale.data.readers.recordio_words import Gaps, Keys, MappedWords, continued, is_ascending

_SCANNED = 1 << 21  # words looked at together
_SHORT = 1024  # bytes of a record below which every word is looked at, rather than one page per record
_FIRST = 256  # records that tell how long those of a file are


def read_index(path: Path, size: int) -> tuple[Keys, IntArray]:
    """Keys (ascending) and byte offsets from an .idx file of a record file of ``size`` bytes.

    Raises:
        ValueError: not lines of two integers, or offsets that cannot be records of such a file.
    """
    keys, offsets = index_numbers(path)
    if isinstance(keys, np.ndarray) and not is_ascending(keys):
        order = np.argsort(keys, kind="stable")
        keys, offsets = keys[order], offsets[order]
        repeated = not is_ascending(keys)
    else:
        repeated = False
    if repeated or offsets.min() < 0 or int(np.bitwise_or.reduce(offsets)) % 4:
        raise ValueError(f"'{path}' has repeated keys or impossible offsets; remove it to have it rebuilt")
    if offsets.max() > size - FRAME.size - HEADER.size:
        raise ValueError(
            f"'{path}' points to byte {offsets.max():,} of a record file of {size:,} bytes; that file is"
            " truncated, or the index belongs to another one"
        )
    return keys, offsets


def check_gapless(path: Path, words: MappedWords, offsets: IntArray, gaps: Gaps) -> None:
    """Make sure that the index ``path`` leaves out no record between two that it names.

    Raises:
        ValueError: it does.
    """
    for part in words.blocks(len(offsets)):
        word = words.values[offsets[part] // 4 + 1].astype(np.int64)
        is_whole = word >> KIND_BIT == 0  # a record in parts is longer than its first part tells
        missed = is_whole & ((FRAME.size + (word & MAX_LENGTH) + 3) // 4 * 4 != gaps.of(part))
        if missed.any():
            raise ValueError(
                f"'{path}' leaves out what follows the record at byte {offsets[part][missed][0]:,}; it is"
                " incomplete: copy it again, or remove it to have it rebuilt"
            )


def record_end(words: Words, offset: int) -> int:
    """Byte behind the record that starts at ``offset``, all its parts included; may lie beyond the file."""
    while True:
        word = int(words[offset // 4 + 1])
        offset += padded(FRAME.size + (word & MAX_LENGTH))
        if word >> KIND_BIT not in (1, 2) or offset + FRAME.size > words.nbytes:
            return offset


def rebuild_index(path: Path, words: MappedWords) -> tuple[Keys, IntArray]:
    """Keys (ascending) and byte offsets, int64 (N,) each, by one pass over the records.

    Raises:
        ValueError: a record is incomplete, or this is not a RecordIO file.
    """
    offsets = np.concatenate(list(_starts(path, words)))
    if is_set_header(words.values, 0, 0, int(Gaps(offsets, words.size).of(slice(0, 1))[0])):
        return range(len(offsets)), offsets
    keys: Keys = range(0)
    for part in words.blocks(len(offsets)):
        at = offsets[part] // 4
        key = words.values[at + 4].astype(np.int64) | words.values[at + 5].astype(np.int64) << 32
        keys = continued(keys, key, part.start, len(offsets))
    if isinstance(keys, range) or is_ascending(keys):
        return keys, offsets
    order = np.argsort(keys, kind="stable")
    if not is_ascending(keys[order]):  # keys repeat
        return range(len(offsets)), offsets
    return keys[order], offsets[order]


def _starts(path: Path, words: MappedWords) -> Iterator[IntArray]:
    """Where records start, in parts; of a part in which every frame leads to the next, all at once."""
    offset, inside = 0, False
    while offset < words.size:
        starts, offset, inside = _one_by_one(path, words, offset, inside)
        yield starts
        is_short = len(starts) and (offset - int(starts[0])) < _SHORT * len(starts)
        while is_short and not inside and offset < words.size:
            starts, end = _at_once(words, offset)
            if not len(starts):
                break
            yield starts
            offset = end
            words.release()
        words.release()


def _one_by_one(
    path: Path, words: MappedWords, offset: int, inside: bool
) -> tuple[npt.NDArray[np.int64], int, bool]:
    view, size = words.values.data.cast("B"), words.size
    starts: list[int] = []
    while offset < size and len(starts) < _FIRST:
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
    return np.array(starts, np.int64), offset, inside


def _at_once(words: MappedWords, offset: int) -> tuple[IntArray, int]:
    """Starts of whole records from ``offset`` on, as long as each frame leads to the next magic number.

    No payload holds the magic number at a multiple of 4 bytes: writers split it there.
    """
    first = offset // 4
    part = words.values[first : first + _SCANNED]
    at = np.flatnonzero(part[:-1] == MAGIC)
    if not len(at) or at[0]:
        return np.empty(0, np.int64), offset
    word = part[at + 1]
    length = (FRAME.size + (word & MAX_LENGTH).astype(np.int64) + 3) // 4  # words
    leads = (word >> KIND_BIT == 0) & (at + length == np.append(at[1:], -1))
    good = len(at) if leads.all() else int(np.argmin(leads))
    return (first + at[:good]) * 4, (first + int(at[good])) * 4 if good < len(at) else offset
