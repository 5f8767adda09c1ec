"""First in, first out."""

import numpy as np

from facescale.arrays import IntArray
from facescale.pools.base import Pool, State, as_ids, check_capacity
from facescale.pools.slot_table import EMPTY


class RingPool(Pool):
    """First in, first out: a batch takes the next slots, whoever sits there; an id may sit in several.

    Of a batch with more ids than slots the last ones stay.

    Args:
        size: number of slots.
    """

    def __init__(self, size: int) -> None:
        self.size = check_capacity(size)
        self.slot_ids: IntArray = np.full(size, EMPTY, np.int64)
        self.pointer = 0
        self._filled = 0
        self._undo: list[tuple[int, int, IntArray, IntArray]] = []

    def __len__(self) -> int:
        return self._filled

    @property
    def bytes(self) -> int:
        """Memory of the bookkeeping."""
        return self.slot_ids.nbytes

    def try_get(self, ids: IntArray) -> IntArray:
        """Like ``get``, until ``commit`` or ``rollback``."""
        ids = as_ids(ids)
        slots = (self.pointer + np.arange(ids.size)) % self.size
        self._undo.append((self.pointer, self._filled, slots, self.slot_ids[slots]))
        self.slot_ids[slots] = ids  # of a repeated slot NumPy keeps the last
        self._filled = min(self.size, max(self._filled, self.pointer + ids.size))
        self.pointer = (self.pointer + ids.size) % self.size
        return slots

    def _revert(self, change: tuple[int, int, IntArray, IntArray]) -> None:
        self.pointer, self._filled, slots, ids = change
        self.slot_ids[slots] = ids

    def view(self, ids: IntArray) -> IntArray:
        """Some slot of each id (B,), or EMPTY; sorts the ring, so not for every step."""
        order = self.slot_ids.argsort()
        found = order[np.searchsorted(self.slot_ids, ids, sorter=order).clip(max=self.size - 1)]
        return np.where(self.slot_ids[found] == ids, found, EMPTY)

    def state(self) -> State:
        """``slot_ids`` (size,) and ``pointer`` (1,)."""
        return {"slot_ids": self.slot_ids.copy(), "pointer": np.array([self.pointer], np.int64)}

    def restore(self, state: State) -> None:
        """Continue from a ``state`` of a ring of the same size.

        Raises:
            ValueError: another size.
        """
        if state["slot_ids"].shape != (self.size,):
            raise ValueError(
                f"the saved ring has {state['slot_ids'].size} slots, this one {self.size}; set the same size"
            )
        self.slot_ids[:] = state["slot_ids"]
        self.pointer = int(state["pointer"][0])
        self._filled = int(np.count_nonzero(self.slot_ids != EMPTY))
        self._undo.clear()
