"""Least recently used out."""

from typing import Any

import numpy as np

from facescale import kernels
from facescale.arrays import IntArray
from facescale.pools.base import Pool, State, as_ids, check_capacity
from facescale.pools.lru_numba import MAX_CAPACITY, LruById
from facescale.pools.lru_numpy import LruByBatch


class LruPool(Pool):
    """Least recently used out: every id in the pool has one slot, a new one takes the oldest id's.

    ``get`` of a batch does exactly what taking its ids one by one would do (it returns each id's slot at its
    turn): one by one where numba is installed (``LruById``), else in a fixed number of NumPy calls
    (``LruByBatch``). What a ``try_get`` returned must not be changed before ``commit`` or ``rollback``.

    Args:
        capacity: number of slots.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = check_capacity(capacity)
        loops = kernels.loops("lru") if capacity <= MAX_CAPACITY else None
        self._content = LruById(capacity, loops) if loops else LruByBatch(capacity)
        self.slot_ids: IntArray = self._content.slot_ids
        self._undo: list[Any] = []

    def __len__(self) -> int:
        return self._content.used

    @property
    def bytes(self) -> int:
        """Memory of the bookkeeping."""
        return self._content.bytes

    @property
    def loop_bytes(self) -> int:
        """Memory of compiled code beside the bookkeeping (measured)."""
        return 16 << 20 if isinstance(self._content, LruById) else 0

    def view(self, ids: IntArray) -> IntArray:
        """Slot of each id (B,), or EMPTY; the order of use stays."""
        return self._content.find(as_ids(ids))

    def try_get(self, ids: IntArray) -> IntArray:
        """Like ``get``, until ``commit`` or ``rollback``."""
        slots, change = self._content.take(as_ids(ids), keep=bool(self._undo))
        self._undo.append(change)
        return slots

    def _revert(self, change: Any) -> None:
        self._content.undo(change)

    def state(self) -> State:
        """``ids`` and ``slots`` of all that are in the pool, most recently used first."""
        slots = self._content.order()[::-1].copy()
        return {"ids": self.slot_ids[slots], "slots": slots}

    def restore(self, state: State) -> None:
        """Continue from a ``state`` of a pool that was no larger, or whose ids fit.

        Raises:
            ValueError: more ids than slots, ids twice, or slots that are not 0, 1, ... in some order.
        """
        ids, slots = as_ids(state["ids"]), np.asarray(state["slots"], np.int64)
        if ids.size > self.capacity:
            raise ValueError(
                f"the saved pool holds {ids.size} ids, this one has {self.capacity} slots; enlarge it"
            )
        if np.unique(ids).size != ids.size or not np.array_equal(np.sort(slots), np.arange(ids.size)):
            raise ValueError(
                "the saved pool is damaged: ids repeat or slots are not 0, 1, ...; use another checkpoint"
            )
        LruPool.__init__(self, self.capacity)
        self._content.fill(ids[::-1].copy(), slots[::-1].copy())
