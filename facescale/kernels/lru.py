"""``pools.by_id.LruById`` id by id; importing this needs numba.

A batch of random ids waits for memory far longer than it computes. So an identity is one cache line: a hash
table of buckets of four, each 64 bytes, which hold ids, slots and last uses side by side. All lines that a
batch will need are asked for first; then the ids are taken one by one.

An id is in its home bucket, or, if that is full, in the next one that is not. When an id leaves a full
bucket, the gap is filled from behind (``_fill_gap``), so a search may stop at the first bucket with room.

All numbers of places are unsigned: for signed ones numba first checks whether they count from the end.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from facescale.kernels.compiled import compiled
from facescale.kernels.prefetch import prefetch

# N ids of a batch

_Int64 = NDArray[np.int64]
_Int32 = NDArray[np.int32]

NO_ID, UNTOUCHED = -1, -2  # in place of the id that a slot had: it was free; it kept its id
_0, _1, _2, _3, _4, _8, _16 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 8, 16))
_SLOT, _LAST = np.uint64(8), np.uint64(12)  # where in a bucket, in int32
_HALF = np.uint64(32)
_FACTORS = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)
_AHEAD = 64  # entries of the log


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

    ids: _Int64
    fields: _Int32
    log: _Int32
    slot_ids: _Int64
    shift: np.uint64
    mask: np.uint64


@compiled(inline="always")
def _home(id_: Any, shift: Any) -> Any:
    """Bucket where an id is sought first."""
    hashed = np.uint64(id_)
    hashed = (hashed ^ (hashed >> _HALF)) * _FACTORS[0]
    hashed = (hashed ^ (hashed >> _HALF)) * _FACTORS[1]
    return hashed >> shift


@compiled(inline="always")
def _place_in(id_: int, bucket: Any, ids: _Int64) -> Any:
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
def _full(bucket: Any, ids: _Int64) -> bool:
    first = bucket * _8
    return bool((ids[first] | ids[first + _1] | ids[first + _2] | ids[first + _3]) >= 0)


@compiled(inline="always")
def _id_at(cell: Any, ids: _Int64) -> Any:
    return ids[(cell >> _2) * _8 + (cell & _3)]


@compiled(inline="always")
def _at(cell: Any) -> Any:
    """Where the cell's fields start."""
    return (cell >> _2) * _16 + (cell & _3)


@compiled()
def _find(id_: Any, ids: _Int64, shift: Any, mask: Any) -> int:
    """Cell of an id, or -1 - the bucket where it would be put."""
    bucket = _home(id_, shift)
    while True:
        place = _place_in(id_, bucket, ids)
        if ids[bucket * _8 + place] == id_:
            return int(np.int64(bucket * _4 + place))
        if not _full(bucket, ids):
            return -1 - int(np.int64(bucket))
        bucket = (bucket + _1) & mask


@compiled(inline="always")
def _put(id_: int, slot: int, found: int, ids: _Int64, fields: _Int32, slot_ids: _Int64) -> Any:
    """Write an id where ``_find`` says that it would be; returns the cell."""
    bucket = np.uint64(-1 - found)
    place = _3
    if ids[bucket * _8 + _2] < 0:
        place = _2
    if ids[bucket * _8 + _1] < 0:
        place = _1
    if ids[bucket * _8] < 0:
        place = _0
    ids[bucket * _8 + place] = id_
    fields[bucket * _16 + place + _SLOT] = slot
    slot_ids[np.uint64(slot)] = id_
    return bucket * _4 + place


@compiled(inline="always")
def _use(cell: Any, time: int, fields: _Int32, log: _Int32) -> None:
    fields[_at(cell) + _LAST] = time
    log[np.uint64(time)] = cell


@compiled(inline="always")
def _remove(cell: Any, ids: _Int64, fields: _Int32, log: _Int32, shift: Any, mask: Any) -> bool:
    """Empty a cell; whether others were moved."""
    was_full = _full(cell >> _2, ids)
    ids[(cell >> _2) * _8 + (cell & _3)] = -1
    fields[_at(cell) + _LAST] = -1
    if was_full:
        _fill_gap(cell, ids, fields, log, shift, mask)
    return bool(was_full)


@compiled()
def _fill_gap(gap: Any, ids: _Int64, fields: _Int32, log: _Int32, shift: Any, mask: Any) -> None:
    """An id left a full bucket: bring back one that had to go past it, then one into that one's place."""
    bucket, passed_on = gap >> _2, True
    while passed_on:
        bucket = (bucket + _1) & mask
        passed_on = _full(bucket, ids)
        distance = (bucket - (gap >> _2)) & mask
        for n in range(4):
            cell = bucket * _4 + np.uint64(n)
            id_ = _id_at(cell, ids)
            if id_ >= 0 and ((bucket - _home(id_, shift)) & mask) >= distance:
                ids[(gap >> _2) * _8 + (gap & _3)] = id_
                fields[_at(gap) + _SLOT] = fields[_at(cell) + _SLOT]
                _use(gap, fields[_at(cell) + _LAST], fields, log)
                ids[bucket * _8 + np.uint64(n)] = -1
                fields[_at(cell) + _LAST] = -1
                gap = cell
                break


@compiled()
def slots_of(id_N: _Int64, t: Table, slot_N: _Int64) -> None:
    """Slot of each id into ``slot_N``, or -1."""
    ids, fields, _, _, shift, mask = t
    for n in range(len(id_N)):
        prefetch(ids, np.int64(_home(id_N[n], shift) * _8))
    for n in range(len(id_N)):
        found = _find(id_N[n], ids, shift, mask)
        slot_N[n] = fields[_at(np.uint64(found)) + _SLOT] if found >= 0 else -1


@compiled(inline="always")
def _look_up(id_N: _Int64, cell_N: _Int64, unknown: Any, ids: _Int64, shift: Any, mask: Any) -> int:
    """Like ``_find`` for each id, all lines asked for first; returns how many are not there.

    Of one whose home is full it says ``unknown`` only, for that may change with every id that leaves.
    """
    for n in range(len(id_N)):
        bucket = _home(id_N[n], shift)
        cell_N[n] = np.int64(bucket)
        prefetch(ids, np.int64(bucket * _8))
    missing = 0
    for n in range(len(id_N)):
        id_, bucket = id_N[n], np.uint64(cell_N[n])
        place = _place_in(id_, bucket, ids)
        found: Any = np.int64(bucket * _4 + place)
        if ids[bucket * _8 + place] != id_:
            found = -1 - np.int64(bucket)
            if _full(bucket, ids):
                found = _find(id_, ids, shift, mask)
                if found < 0:
                    found = unknown
        cell_N[n] = found
        missing += found < 0
    return missing


@compiled(inline="always")
def _look_at_oldest(
    count: int, tail: int, head: int, ids: _Int64, fields: _Int32, log: _Int32, slot_ids: _Int64, mask: Any
) -> None:
    """Prefetch the lines of the ``count`` ids that will be evicted."""
    for entry in range(tail, min(head, tail + count)):
        prefetch(ids, np.int64((np.uint64(log[np.uint64(entry)]) >> _2) * _8))
    stop, counting = tail, 0
    while counting < count and stop < head:
        counting += fields[_at(np.uint64(log[np.uint64(stop)])) + _LAST] == stop
        stop += 1
    for entry in range(tail, stop):
        cell = np.uint64(log[np.uint64(entry)])
        prefetch(slot_ids, np.int64(fields[_at(cell) + _SLOT]))
        if _full(cell >> _2, ids):
            prefetch(ids, np.int64((((cell >> _2) + _1) & mask) * _8))


@compiled()
def take(
    id_N: _Int64,
    t: Table,
    used: int,
    tail: int,
    head: int,
    slot_N: _Int64,
    last_N: _Int32,
    old_id_N: _Int64,
) -> tuple[int, int, int]:
    """Use ids one by one.

    Args:
        id_N: ids.
        t: the pool.
        used: occupied slots.
        tail: first entry of the log that may count.
        head: entries of the log, which has room for N more.
        slot_N: becomes the slot of each id at its turn.
        last_N: becomes the last use of the id that had this slot before.
        old_id_N: becomes that id, NO_ID or UNTOUCHED.

    Returns:
        ``used``, ``tail`` and ``head``.
    """
    ids, fields, log, slot_ids, shift, mask = t
    unknown = -2 - np.int64(mask)
    capacity = len(slot_ids)
    missing = _look_up(id_N, slot_N, unknown, ids, shift, mask)
    if missing > capacity - used:
        _look_at_oldest(missing - capacity + used, tail, head, ids, fields, log, slot_ids, mask)
    for n in range(len(id_N)):
        id_: Any = id_N[n]
        found: Any = slot_N[n]
        # An id that was not there may have come since, one that was there may have gone or been moved.
        if found >= 0:
            if _id_at(np.uint64(found), ids) != id_:
                found = _find(id_, ids, shift, mask)
        elif found == unknown or _full(np.uint64(-1 - found), ids):
            found = _find(id_, ids, shift, mask)
        else:
            bucket = np.uint64(-1 - found)
            place = _place_in(id_, bucket, ids)
            if ids[bucket * _8 + place] == id_:
                found = np.int64(bucket * _4 + place)
        if found >= 0:
            cell = np.uint64(found)
            old_id_N[n], last_N[n] = UNTOUCHED, fields[_at(cell) + _LAST]
            slot_N[n] = fields[_at(cell) + _SLOT]
        else:
            if used < capacity:
                slot, old_id_N[n] = used, NO_ID
                used += 1
            else:
                oldest = np.uint64(log[np.uint64(tail)])
                while fields[_at(oldest) + _LAST] != tail:
                    tail += 1
                    oldest = np.uint64(log[np.uint64(tail)])
                slot, old_id_N[n], last_N[n] = fields[_at(oldest) + _SLOT], _id_at(oldest, ids), tail
                tail += 1
                if _remove(oldest, ids, fields, log, shift, mask):
                    found = _find(id_, ids, shift, mask)
            cell = _put(id_, slot, found, ids, fields, slot_ids)
            slot_N[n] = slot
        _use(cell, head, fields, log)
        head += 1
    return used, tail, head


@compiled()
def undo(slot_N: _Int64, last_N: _Int32, old_id_N: _Int64, t: Table) -> None:
    """Take back what the last ``take`` did; ``used``, ``tail`` and ``head`` are the caller's."""
    ids, fields, log, slot_ids, shift, mask = t
    for n in range(len(slot_N) - 1, -1, -1):
        slot, old_id = slot_N[n], old_id_N[n]
        found = _find(slot_ids[np.uint64(slot)], ids, shift, mask)
        if old_id == UNTOUCHED:
            _use(np.uint64(found), last_N[n], fields, log)
            continue
        _remove(np.uint64(found), ids, fields, log, shift, mask)
        slot_ids[np.uint64(slot)] = -1
        if old_id != NO_ID:
            found = _find(old_id, ids, shift, mask)
            _use(_put(old_id, slot, found, ids, fields, slot_ids), last_N[n], fields, log)


@compiled()
def fill(id_N: _Int64, slot_N: _Int64, t: Table) -> None:
    """Put ids, oldest first, into an empty pool."""
    ids, fields, log, slot_ids, shift, mask = t
    for n in range(len(id_N)):
        found = _find(id_N[n], ids, shift, mask)
        _use(_put(id_N[n], slot_N[n], found, ids, fields, slot_ids), n, fields, log)


@compiled()
def compact(tail: int, head: int, t: Table) -> int:
    """Drop the entries of the log that do not count; returns how many are left."""
    ids, fields, log, _, _, _ = t
    kept = 0
    for entry in range(tail, head):
        if entry + _AHEAD < head:
            cell = np.uint64(log[np.uint64(entry + _AHEAD)])
            prefetch(ids, np.int64((cell >> _2) * _8))
        cell = np.uint64(log[np.uint64(entry)])
        if fields[_at(cell) + _LAST] == entry:
            _use(cell, kept, fields, log)  # never ahead of what is still to be read
            kept += 1
    return kept
