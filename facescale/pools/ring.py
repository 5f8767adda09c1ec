"""First in, first out."""

import numpy as np

from facescale.pools.base import State, as_ids, check_capacity, check_settled
from facescale.pools.table import EMPTY, Bools, Ints


class RingPool:
    """First in, first out: a batch takes the next slots, whoever sits there; an id may sit in several.

    Args:
        size: number of slots.
    """

    def __init__(self, size: int) -> None:
        self.size = check_capacity(size)
        self.slot_ids: Ints = np.full(size, EMPTY, np.int64)
        self.pointer = 0
        self._filled = 0
        self._undo: list[tuple[int, int, Ints, Ints]] = []

    def __len__(self) -> int:
        return self._filled

    @property
    def bytes(self) -> int:
        """Memory of the bookkeeping."""
        return self.slot_ids.nbytes

    def get(self, ids: Ints) -> Ints:
        """Put ``ids`` (B,) into the next slots and return these (of more ids than slots the last ones stay).

        Raises:
            ValueError: negative ids, or ``try_get`` calls are neither committed nor rolled back.
        """
        check_settled(self._undo)
        slots = self.try_get(ids)
        self.commit()
        return slots

    def try_get(self, ids: Ints) -> Ints:
        """Like ``get``, until ``commit`` or ``rollback``."""
        ids = as_ids(ids)
        slots = (self.pointer + np.arange(ids.size)) % self.size
        self._undo.append((self.pointer, self._filled, slots, self.slot_ids[slots]))
        self.slot_ids[slots] = ids  # of a repeated slot NumPy keeps the last
        self._filled = min(self.size, max(self._filled, self.pointer + ids.size))
        self.pointer = (self.pointer + ids.size) % self.size
        return slots

    def commit(self) -> None:
        """Confirm all ``try_get`` calls."""
        self._undo.clear()

    def rollback(self, count: int | None = None) -> None:
        """Undo the last ``count`` ``try_get`` calls, all by default."""
        for _ in range(len(self._undo) if count is None else min(count, len(self._undo))):
            self.pointer, self._filled, slots, ids = self._undo.pop()
            self.slot_ids[slots] = ids

    def view(self, ids: Ints) -> Ints:
        """Some slot of each id (B,), or EMPTY; sorts the ring, so not for every step."""
        order = self.slot_ids.argsort()
        found = order[np.searchsorted(self.slot_ids, ids, sorter=order).clip(max=self.size - 1)]
        return np.where(self.slot_ids[found] == ids, found, EMPTY)

    def contains(self, ids: Ints) -> Bools:
        """Whether each id (B,) is in the ring."""
        return np.not_equal(self.view(ids), EMPTY)

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
