"""An LRU in a fixed number of NumPy calls per batch, for where numba is not installed."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.pools.slot_table import EMPTY, SlotTable, index_type

_Indices = npt.NDArray[np.signedinteger[Any]]
_PART = 1 << 16  # entries of the log that are looked through at a time


class LruByBatch:
    """What ``LruPool`` keeps, for whole batches at once.

    The order of use is a log of slots: an entry counts while it is the last one of its slot, so a touch is an
    append, and the least recent slots are the first entries that count.

    Args:
        capacity: number of slots.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        ids: IntArray = np.full(capacity + 1, EMPTY, np.int64)
        self.slot_ids: IntArray = ids[:-1]
        self.used = 0  # slots are first given out in order 0, 1, 2, ...
        self._table = SlotTable(ids)
        self._usual_log = max(64, 3 * capacity)
        kind = index_type(64 * self._usual_log)  # it grows while tries are open
        self._log: _Indices = np.empty(self._usual_log, kind)
        self._tail = self._head = 0  # the log's entries are [tail, head)
        self._last: _Indices = np.full(capacity, EMPTY, kind)  # index in the log of a slot's last entry
        self._keep = False  # a rollback may need entries of the log that do not count now

    @property
    def bytes(self) -> int:
        """Memory of the bookkeeping."""
        return self.slot_ids.nbytes + self._log.nbytes + self._last.nbytes + self._table.bytes

    @property
    def log_size(self) -> int:
        """Entries that the log has room for."""
        return self._log.size

    def find(self, ids: IntArray) -> IntArray:
        """Slot of each id (B,), or EMPTY."""
        return self._table.find(ids)

    def take(self, ids: IntArray, keep: bool) -> tuple[IntArray, list["_Change"]]:
        """Use ids; returns their slots and what ``undo`` needs.

        Args:
            ids: int64 (B,).
            keep: earlier uses may still be undone.
        """
        changes: list[_Change] = []
        # A part of at most `capacity` ids cannot evict an id that it has used itself.
        parts = []
        for start in range(0, ids.size, self.capacity):
            self._keep = keep or start > 0
            parts.append(self._take(ids[start : start + self.capacity], changes))
        return np.concatenate(parts) if parts else ids, changes

    def undo(self, changes: list["_Change"]) -> None:
        """Take back what the last ``take`` did."""
        for change in reversed(changes):
            self.slot_ids[change.new_slots] = EMPTY
            self.slot_ids[change.victims] = change.old_ids
            self._table.insert(change.victims[self._table.find(change.old_ids) == EMPTY])
            self._last[change.touched] = change.last
            self.used, self._head = change.used, change.head

    def order(self) -> IntArray:
        """Slots, least recently used first."""
        self._keep = True
        return self._oldest(self.used)[0]

    def fill(self, ids: IntArray, slots: IntArray) -> None:
        """Put ids, oldest first, into an empty pool."""
        self.used = ids.size
        self.slot_ids[slots] = ids
        self._table.insert(slots)
        self._touch(slots)

    def _take(self, ids: IntArray, changes: list["_Change"]) -> IntArray:
        """``get`` for at most ``capacity`` ids; appends what it changes."""
        self._make_room(ids.size)
        used, head = self.used, self._head
        slots = self._table.find(ids)
        new = np.flatnonzero(slots == EMPTY)
        new_slots = victims = old_ids = new
        if new.size:
            new_ids, which, first = _distinct(ids.take(new))
            free = self.capacity - used
            if new_ids.size > free:
                lost, victims = self._evict(slots, new.take(first), free)
                if lost.size:
                    slots[lost] = EMPTY
                    new = np.flatnonzero(slots == EMPTY)
                    new_ids, which, first = _distinct(ids.take(new))
            else:
                victims = new[:0]
            self.used += new_ids.size - victims.size
            new_slots = np.concatenate([np.arange(used, self.used), victims])
            old_ids = self.slot_ids.take(victims)
            slots[new] = new_slots.take(which)
            self.slot_ids[new_slots] = new_ids
            self._table.insert(new_slots)
        changes.append(_Change(used, head, slots, self._last.take(slots), new_slots, victims, old_ids))
        self._touch(slots)
        return slots

    def _evict(self, slots: IntArray, first: IntArray, free: int) -> tuple[IntArray, IntArray]:
        """Who has to go so that a part's new ids find a slot.

        Take the ids one by one: when the id at place p comes, each new id before it has taken a free slot or
        the oldest slot that this part has not used so far. An id in the pool whose slot has age rank r (0 is
        the oldest) is itself evicted before its turn if by then more slots were evicted than are older than
        its own and still unused: new(p) - free > r - #{older slots of this part's ids that came before p}.
        Ids lost so stand on both sides (an eviction more, a slot less in the way), so it is enough to count
        in new(p) those that were new from the start.

        Args:
            slots: of the part's ids, (n,), or EMPTY.
            first: first place of each distinct new id, ascending.
            free: empty slots, fewer than there are new ids.

        Returns:
            Places of ids that are evicted before their turn; all slots to evict, in order.
        """
        evictions = first.size - free
        last = self._last.take(slots)
        # The second reach is always enough, the first one if few of the oldest slots are of this part's ids.
        for reach in (evictions + evictions // 8 + 8, slots.size - free):
            oldest, age = self._oldest(min(reach, slots.size - free))
            mine = np.flatnonzero((slots != EMPTY) & (last <= age[-1]))
            if oldest.size - mine.size >= evictions:
                break
        if not mine.size:
            return mine, oldest[:evictions]
        rank, index, whose = np.unique(
            np.searchsorted(age, last.take(mine)), return_index=True, return_inverse=True
        )
        turn = mine.take(index)
        evicted = np.searchsorted(first, turn) - free
        lost = evicted > rank - np.arange(rank.size)
        if lost.any():  # else no id would be lost even if all older ones had come before
            lost = evicted > rank - _smaller_before(turn)
        evictable = np.ones(oldest.size, bool)
        evictable[rank[~lost]] = False
        return mine[lost[whose]], oldest[evictable][: evictions + np.count_nonzero(lost)]

    def _oldest(self, count: int) -> tuple[IntArray, IntArray]:
        """The ``count`` least recently used slots, oldest first, and their places in the log, ascending."""
        # a first guess: entries count as often as on the average of the log, and a few more are old ones
        reach = count * (self._head - self._tail) // max(self.used, 1) + count // 8 + 8
        while True:
            entries = np.arange(self._tail, min(self._tail + reach, self._head))
            slots = self._log[self._tail : self._tail + entries.size].astype(np.int64)
            live = np.flatnonzero(self._last.take(slots) == entries)[:count]
            if live.size == count:
                break
            reach *= 2
        slots, age = slots.take(live), live + self._tail
        if live.size and not self._keep:  # else a rollback may need what does not count now
            self._tail = int(age[0])
        return slots, age

    def _touch(self, slots: IntArray) -> None:
        """Log the use of ``slots`` in this order."""
        end = self._head + slots.size
        self._log[self._head : end] = slots
        self._last[slots] = np.arange(self._head, end)  # of a repeated slot NumPy keeps the last
        self._head = end

    def _make_room(self, count: int) -> None:
        """Let the log take ``count`` more entries, by dropping what does not count."""
        if self._head + count <= self._log.size:
            return
        if self._keep:  # a rollback may need all of it
            self._log = np.concatenate([self._log, np.empty_like(self._log)])
            return
        kept = 0
        for start in range(self._tail, self._head, _PART):
            slots = self._log[start : min(start + _PART, self._head)]
            live = slots[self._last.take(slots) == np.arange(start, start + slots.size)]
            self._log[kept : kept + live.size] = live  # never ahead of what is still to be read
            self._last[live] = np.arange(kept, kept + live.size)
            kept += live.size
        self._tail, self._head = 0, kept
        if self._log.size > self._usual_log:
            self._log = self._log[: self._usual_log].copy()


class _Change(NamedTuple):
    """What one part of a ``try_get`` changed, so that it can be undone."""

    used: int  # before
    head: int  # before
    touched: IntArray
    last: _Indices  # of the touched slots, before
    new_slots: IntArray  # that have another id now
    victims: IntArray  # those of them that had one before
    old_ids: IntArray  # of the victims


def _distinct(ids: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Distinct ids by first appearance; which of them each id (n,) is; their first places."""
    order = ids.argsort()  # the default kind is vectorised, the stable one is several times slower
    in_order = ids.take(order)
    differs = in_order[1:] != in_order[:-1]
    if differs.all():
        places = np.arange(ids.size)
        return ids, places, places
    starts = np.concatenate([[True], differs])
    first = np.minimum.reduceat(order, np.flatnonzero(starts))
    is_first = np.zeros(ids.size, bool)
    is_first[first] = True
    number = np.cumsum(is_first) - 1
    which = np.empty_like(order)
    which[order] = number.take(first).take(np.cumsum(starts) - 1)
    places = np.flatnonzero(is_first)
    return ids.take(places), which, places


def _smaller_before(values: IntArray) -> IntArray:
    """For each of n distinct values the number of smaller ones in front of it, in O(n log n).

    Radix sort from the highest bit of the rank down; within the values that agree so far, one with the bit
    set counts those in front of it without.
    """
    size = values.size
    if size <= 64:
        few: IntArray = np.tril(values < values[:, None], -1).sum(1)
        return few
    rank, place = np.empty(size, np.int64), np.arange(size)
    rank[values.argsort()] = place.copy()
    result = np.zeros(size, np.int64)
    for bit in reversed(range(size.bit_length())):
        start = (
            rank >> (bit + 1) << (bit + 1)
        )  # ranks are 0..n-1, so a group starts where its lowest rank will be
        high = (rank >> bit & 1).astype(bool)
        lows = np.concatenate([[0], np.cumsum(~high)])
        before = lows[:-1] - lows[start]
        result[place[high]] += before[high]
        target = np.where(high, np.arange(size) - before + (1 << bit), start + before)
        rank[target], place[target] = rank.copy(), place.copy()
    return result
