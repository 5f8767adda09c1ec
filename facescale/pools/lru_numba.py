"""An LRU that takes a batch's ids one by one, in compiled loops."""

from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.pools.slot_table import EMPTY

MAX_CAPACITY = 1 << 28  # 8 cells a slot, numbered in int32
_LINE = 64  # bytes
# slots, last uses and old ids; used, tail and head before
_Change = tuple[IntArray, npt.NDArray[np.int32], IntArray, int, int, int]


class LruById:
    """What ``LruPool`` keeps: a hash table and a log of uses, see ``kernels.lru``.

    Args:
        capacity: number of slots, at most MAX_CAPACITY.
        loops: ``kernels.lru``.
    """

    def __init__(self, capacity: int, loops: ModuleType) -> None:
        self._loops = loops
        self.slot_ids: IntArray = np.full(capacity, EMPTY, np.int64)
        self.used = 0  # slots are first given out in order 0, 1, 2, ...
        bits = max(1, (capacity - 1).bit_length())  # of four cells each; one in two to one in eight is used
        memory: IntArray = np.full((_LINE // 8 << bits) + _LINE // 8, EMPTY, np.int64)
        start = -memory.ctypes.data % _LINE // 8  # a bucket is one line of the cache, not parts of two
        self._ids: IntArray = memory[start : start + (_LINE // 8 << bits)]
        self._shift, self._mask = np.uint64(64 - bits), np.uint64((1 << bits) - 1)
        self._usual_log = max(64, 3 * capacity)
        self._log = np.empty(self._usual_log, np.int32)
        self._tail = self._head = 0  # the log's entries are [tail, head); before them none counts

    @property
    def bytes(self) -> int:
        """Memory of the bookkeeping."""
        return self.slot_ids.nbytes + self._log.nbytes + self._ids.nbytes

    @property
    def log_size(self) -> int:
        """Entries that the log has room for."""
        return self._log.size

    def find(self, ids: IntArray) -> IntArray:
        """Slot of each id (B,), or EMPTY."""
        slots = np.empty_like(ids)
        self._loops.slots_of(ids, self._all, slots)
        return slots

    def take(self, ids: IntArray, keep: bool) -> tuple[IntArray, _Change]:
        """Use ids; returns their slots and what ``undo`` needs.

        Args:
            ids: int64 (B,).
            keep: earlier uses may still be undone.
        """
        self._make_room(ids.size, keep)
        before = self.used, self._tail, self._head
        slots, last, old_ids = np.empty_like(ids), np.empty(ids.size, np.int32), np.empty_like(ids)
        self.used, self._tail, self._head = self._loops.take(ids, self._all, *before, slots, last, old_ids)
        return slots, (slots, last, old_ids, *before)

    def undo(self, change: _Change) -> None:
        """Take back what the last ``take`` did."""
        slots, last, old_ids, self.used, self._tail, self._head = change
        self._loops.undo(slots, last, old_ids, self._all)

    def order(self) -> IntArray:
        """Slots, least recently used first."""
        cells, fields = self._log[self._tail : self._head], self._ids.view(np.int32).reshape(-1, _LINE // 4)
        buckets, places = np.divmod(cells, 4)
        counts = fields[buckets, 12 + places] == np.arange(self._tail, self._head)
        slots: IntArray = fields[buckets, 8 + places][counts].astype(np.int64)
        return slots

    def fill(self, ids: IntArray, slots: IntArray) -> None:
        """Put ids, oldest first, into an empty pool."""
        self.used = self._head = ids.size
        self._loops.fill(ids, slots, self._all)

    @property
    def _all(self) -> Any:
        """The pool as the compiled loops take it."""
        fields = self._ids.view(np.int32)
        return self._loops.Table(self._ids, fields, self._log, self.slot_ids, self._shift, self._mask)

    def _make_room(self, count: int, keep: bool) -> None:
        """Let the log take ``count`` more entries, by dropping what does not count."""
        if self._head + count <= self._log.size:
            return
        if not keep:
            self._tail, self._head = 0, self._loops.compact(self._tail, self._head, self._all)
        size = max(self._usual_log, self._head + count, 2 * self._log.size if keep else 0)
        if size != self._log.size:
            log = np.empty(size, np.int32)
            log[: self._head] = self._log[: self._head]
            self._log = log
