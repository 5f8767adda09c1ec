"""The hash table of ``lru``; importing this needs numba.

A batch of random ids waits for memory far longer than it computes. So an identity is one cache line: a hash
table of buckets of four, each 64 bytes, which hold ids, slots and last uses side by side.

An id is in its home bucket, or, if that is full, in the next one that is not. When an id leaves a full
bucket, the gap is filled from behind (``fill_gap``), so a search may stop at the first bucket with room.

All numbers of places are unsigned: for signed ones numba first checks whether they count from the end.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facescale.kernels.compiled import compiled

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]

_0, _1, _2, _3, _4, _8, _16 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 8, 16))
SLOT, LAST = np.uint64(8), np.uint64(12)  # where in a bucket, in int32
_HALF = np.uint64(32)
_FACTORS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


class Table(NamedTuple):
    """What ``LruById`` keeps.

    Attributes:
        ids: the buckets as int64 (8 * buckets,), of which the first four are ids, or -1.
        fields: the same memory as int32 (16 * buckets,): the third four are slots, the last four last uses.
        log: cells (4 * bucket + place in it) in the order of use; an entry counts while it is the last use of
            the id in the cell.
        slot_ids: id in each slot, or -1.
        shift: 64 - log2(buckets).
        mask: buckets - 1.
    """

    ids: Int64
    fields: Int32
    log: Int32
    slot_ids: Int64
    shift: np.uint64
    mask: np.uint64


@compiled(inline="always")
def home(id_: Any, shift: Any) -> Any:
    """Bucket where an id is sought first."""
    hashed = np.uint64(id_)
    hashed = (hashed ^ (hashed >> _HALF)) * _FACTORS[0]
    hashed = (hashed ^ (hashed >> _HALF)) * _FACTORS[1]
    return hashed >> shift


@compiled(inline="always")
def place_in(id_: int, bucket: Any, ids: Int64) -> Any:
    """Place of an id in its bucket, or 0."""
    place = _0
    if ids[bucket * _8 + _1] == id_:
        place = _1
    if ids[bucket * _8 + _2] == id_:
        place = _2
    if ids[bucket * _8 + _3] == id_:
        place = _3
    return place


@compiled(inline="always")
def full(bucket: Any, ids: Int64) -> bool:
    """Whether a bucket has no free place."""
    first = bucket * _8
    return bool((ids[first] | ids[first + _1] | ids[first + _2] | ids[first + _3]) >= 0)


@compiled(inline="always")
def id_at(cell: Any, ids: Int64) -> Any:
    """The id in a cell."""
    return ids[(cell >> _2) * _8 + (cell & _3)]


@compiled(inline="always")
def at(cell: Any) -> Any:
    """Where the cell's fields start."""
    return (cell >> _2) * _16 + (cell & _3)


@compiled()
def find(id_: Any, ids: Int64, shift: Any, mask: Any) -> int:
    """Cell of an id, or -1 - the bucket where it would be put."""
    bucket = home(id_, shift)
    while True:
        place = place_in(id_, bucket, ids)
        if ids[bucket * _8 + place] == id_:
            return int(np.int64(bucket * _4 + place))
        if not full(bucket, ids):
            return -1 - int(np.int64(bucket))
        bucket = (bucket + _1) & mask


@compiled(inline="always")
def put(id_: int, slot: int, found: int, ids: Int64, fields: Int32, slot_ids: Int64) -> Any:
    """Write an id where ``find`` says that it would be; returns the cell."""
    bucket = np.uint64(-1 - found)
    place = _3
    if ids[bucket * _8 + _2] < 0:
        place = _2
    if ids[bucket * _8 + _1] < 0:
        place = _1
    if ids[bucket * _8] < 0:
        place = _0
    ids[bucket * _8 + place] = id_
    fields[bucket * _16 + place + SLOT] = slot
    slot_ids[np.uint64(slot)] = id_
    return bucket * _4 + place


@compiled(inline="always")
def use(cell: Any, time: int, fields: Int32, log: Int32) -> None:
    """Say that the id in a cell was last used as entry ``time`` of the log."""
    fields[at(cell) + LAST] = time
    log[np.uint64(time)] = cell


@compiled(inline="always")
def remove(cell: Any, ids: Int64, fields: Int32, log: Int32, shift: Any, mask: Any) -> bool:
    """Empty a cell; whether others were moved."""
    was_full = full(cell >> _2, ids)
    ids[(cell >> _2) * _8 + (cell & _3)] = -1
    fields[at(cell) + LAST] = -1
    if was_full:
        fill_gap(cell, ids, fields, log, shift, mask)
    return bool(was_full)


@compiled()
def fill_gap(gap: Any, ids: Int64, fields: Int32, log: Int32, shift: Any, mask: Any) -> None:
    """An id left a full bucket: bring back one that had to go past it, then one into that one's place."""
    bucket, passed_on = gap >> _2, True
    while passed_on:
        bucket = (bucket + _1) & mask
        passed_on = full(bucket, ids)
        distance = (bucket - (gap >> _2)) & mask
        for n in range(4):
            cell = bucket * _4 + np.uint64(n)
            id_ = id_at(cell, ids)
            if id_ >= 0 and ((bucket - home(id_, shift)) & mask) >= distance:
                ids[(gap >> _2) * _8 + (gap & _3)] = id_
                fields[at(gap) + SLOT] = fields[at(cell) + SLOT]
                use(gap, fields[at(cell) + LAST], fields, log)
                ids[bucket * _8 + np.uint64(n)] = -1
                fields[at(cell) + LAST] = -1
                gap = cell
                break
