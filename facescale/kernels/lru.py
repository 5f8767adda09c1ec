"""``pools.lru_numba.LruById`` id by id; importing this needs numba.

The lines of the table (``lru_table``) that some ids will need are asked for first; then these ids are taken
one by one, while the lines of the next ones are on their way.
"""

from typing import Any

import numpy as np

from facescale.kernels.compiled import compiled
from facescale.kernels.lru_table import (
    LAST,
    SLOT,
    Int32,
    Int64,
    Table,
    at,
    find,
    full,
    home,
    id_at,
    place_in,
    put,
    remove,
    use,
)
from facescale.kernels.prefetch import prefetch

# N ids of a batch

NO_ID, UNTOUCHED = -1, -2  # in place of the id that a slot had: it was free; it kept its id
_1, _2, _4, _8 = (np.uint64(n) for n in (1, 2, 4, 8))
_AHEAD = 64  # entries of the log
_PART = 64  # ids whose lines are asked for together: few enough for the first caches to hold them


@compiled()
def slots_of(id_N: Int64, t: Table, slot_N: Int64) -> None:
    """Slot of each id into ``slot_N``, or -1."""
    ids, fields, _, _, shift, mask = t
    for n in range(len(id_N)):
        prefetch(ids, np.int64(home(id_N[n], shift) * _8))
    for n in range(len(id_N)):
        found = find(id_N[n], ids, shift, mask)
        slot_N[n] = fields[at(np.uint64(found)) + SLOT] if found >= 0 else -1


@compiled(inline="always")
def _ask_for(id_N: Int64, bucket_N: Int64, ids: Int64, shift: Any) -> None:
    """Find the home of each id and prefetch its line."""
    for n in range(len(id_N)):
        bucket = home(id_N[n], shift)
        bucket_N[n] = np.int64(bucket)
        prefetch(ids, np.int64(bucket * _8))


@compiled(inline="always")
def _look_up(id_N: Int64, cell_N: Int64, unknown: Any, ids: Int64, shift: Any, mask: Any) -> int:
    """Like ``find`` for each id, in place of its home; returns how many are not there.

    Of one whose home is full it says ``unknown`` only, for that may change with every id that leaves.
    """
    missing = 0
    for n in range(len(id_N)):
        id_, bucket = id_N[n], np.uint64(cell_N[n])
        place = place_in(id_, bucket, ids)
        found: Any = np.int64(bucket * _4 + place)
        if ids[bucket * _8 + place] != id_:
            found = -1 - np.int64(bucket)
            if full(bucket, ids):
                found = find(id_, ids, shift, mask)
                if found < 0:
                    found = unknown
        cell_N[n] = found
        missing += found < 0
    return missing


@compiled(inline="always")
def _look_at_oldest(
    count: int, tail: int, head: int, ids: Int64, fields: Int32, log: Int32, slot_ids: Int64, mask: Any
) -> None:
    """Prefetch the lines of the ``count`` ids that will be evicted, and of some that come after them."""
    for entry in range(tail, min(head, tail + count + _PART)):
        prefetch(ids, np.int64((np.uint64(log[np.uint64(entry)]) >> _2) * _8))
    stop, counting = tail, 0
    while counting < count and stop < head:
        counting += fields[at(np.uint64(log[np.uint64(stop)])) + LAST] == stop
        stop += 1
    for entry in range(tail, stop):
        cell = np.uint64(log[np.uint64(entry)])
        prefetch(slot_ids, np.int64(fields[at(cell) + SLOT]))
        if full(cell >> _2, ids):
            prefetch(ids, np.int64((((cell >> _2) + _1) & mask) * _8))


@compiled()
def take(
    id_N: Int64,
    t: Table,
    used: int,
    tail: int,
    head: int,
    slot_N: Int64,
    last_N: Int32,
    old_id_N: Int64,
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
    part = slice(0, _PART)
    _ask_for(id_N[part], slot_N[part], t.ids, t.shift)
    for start in range(0, len(id_N), _PART):
        part, following = slice(start, start + _PART), slice(start + _PART, start + 2 * _PART)
        _ask_for(id_N[following], slot_N[following], t.ids, t.shift)
        used, tail, head = _take_part(
            id_N[part], t, used, tail, head, slot_N[part], last_N[part], old_id_N[part]
        )
    return used, tail, head


@compiled()
def _take_part(
    id_N: Int64,
    t: Table,
    used: int,
    tail: int,
    head: int,
    slot_N: Int64,
    last_N: Int32,
    old_id_N: Int64,
) -> tuple[int, int, int]:
    """``take`` of a few ids, whose homes are in ``slot_N``."""
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
            if id_at(np.uint64(found), ids) != id_:
                found = find(id_, ids, shift, mask)
        elif found == unknown or full(np.uint64(-1 - found), ids):
            found = find(id_, ids, shift, mask)
        else:
            bucket = np.uint64(-1 - found)
            place = place_in(id_, bucket, ids)
            if ids[bucket * _8 + place] == id_:
                found = np.int64(bucket * _4 + place)
        if found >= 0:
            cell = np.uint64(found)
            old_id_N[n], last_N[n] = UNTOUCHED, fields[at(cell) + LAST]
            slot_N[n] = fields[at(cell) + SLOT]
        else:
            if used < capacity:
                slot, old_id_N[n] = used, NO_ID
                used += 1
            else:
                oldest = np.uint64(log[np.uint64(tail)])
                while fields[at(oldest) + LAST] != tail:
                    tail += 1
                    oldest = np.uint64(log[np.uint64(tail)])
                slot, old_id_N[n], last_N[n] = fields[at(oldest) + SLOT], id_at(oldest, ids), tail
                tail += 1
                if remove(oldest, ids, fields, log, shift, mask):
                    found = find(id_, ids, shift, mask)
            cell = put(id_, slot, found, ids, fields, slot_ids)
            slot_N[n] = slot
        use(cell, head, fields, log)
        head += 1
    return used, tail, head


@compiled()
def undo(slot_N: Int64, last_N: Int32, old_id_N: Int64, t: Table) -> None:
    """Take back what the last ``take`` did; ``used``, ``tail`` and ``head`` are the caller's."""
    ids, fields, log, slot_ids, shift, mask = t
    for n in range(len(slot_N) - 1, -1, -1):
        slot, old_id = slot_N[n], old_id_N[n]
        found = find(slot_ids[np.uint64(slot)], ids, shift, mask)
        if old_id == UNTOUCHED:
            use(np.uint64(found), last_N[n], fields, log)
            continue
        remove(np.uint64(found), ids, fields, log, shift, mask)
        slot_ids[np.uint64(slot)] = -1
        if old_id != NO_ID:
            found = find(old_id, ids, shift, mask)
            use(put(old_id, slot, found, ids, fields, slot_ids), last_N[n], fields, log)


@compiled()
def fill(id_N: Int64, slot_N: Int64, t: Table) -> None:
    """Put ids, oldest first, into an empty pool."""
    ids, fields, log, slot_ids, shift, mask = t
    for n in range(len(id_N)):
        found = find(id_N[n], ids, shift, mask)
        use(put(id_N[n], slot_N[n], found, ids, fields, slot_ids), n, fields, log)


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
        if fields[at(cell) + LAST] == entry:
            use(cell, kept, fields, log)  # never ahead of what is still to be read
            kept += 1
    return kept
