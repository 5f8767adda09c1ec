"""Hash table from identities to slots, for whole batches."""

import numpy as np

from facescale.arrays import BoolArray, IntArray

EMPTY = -1  # no id, or no slot
_MAX_MOVES = 100  # rounds of moving others, before the table takes another hash
_NEXT = np.uint64(0x94D049BB133111EB)


def index_type(size: int) -> type[np.int32] | type[np.int64]:
    """The smaller integer type that counts to ``size``: twice as much of it fits into the caches."""
    return np.int32 if size < 2**31 else np.int64


def _bits(num_ids: int) -> int:
    """Of the number of a cell: 8 to 16 cells a slot, so that few ids meet."""
    return (8 * num_ids).bit_length()


class SlotTable:
    """Cuckoo hash table id -> slot in one NumPy array: an id's slot is written in one of the id's two cells.

    Cells hold slots only; whose they are is looked up in ``ids``. So nothing is ever removed: when a slot
    gets another id, cells that point to it no longer match and count as free.

    Args:
        ids: the id in each slot, (capacity + 1,), kept by the owner; the last is EMPTY for ever.
    """

    def __init__(self, ids: IntArray) -> None:
        self._ids = ids
        bits = _bits(ids.size)
        self._cells = np.full(1 << bits, ids.size - 1, index_type(ids.size))
        self._shift = np.uint64(64 - bits)
        self._factors = np.array([0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9], np.uint64)

    @property
    def bytes(self) -> int:
        """Memory of the table."""
        return self._cells.nbytes

    @staticmethod
    def bytes_for(num_ids: int) -> int:
        """Memory of a table for ``ids`` of that size."""
        return np.dtype(index_type(num_ids)).itemsize << _bits(num_ids)

    def _cells_of(self, ids: IntArray) -> tuple[IntArray, IntArray]:
        """The two cells of each id (n,)."""
        first = ids.view(np.uint64)
        first = (first ^ (first >> np.uint64(32))) * self._factors[0]
        second = (first ^ (first >> np.uint64(32))) * self._factors[1]
        return (first >> self._shift).view(np.int64), (second >> self._shift).view(np.int64)

    def find(self, ids: IntArray) -> IntArray:
        """Slot of each id (n,), or EMPTY."""
        first, second = self._cells_of(ids)
        found = self._cells.take(first).astype(np.int64)
        missed = np.flatnonzero(self._ids.take(found) != ids)  # few look into a second cell
        slots = self._cells.take(second.take(missed))
        found[missed] = np.where(self._ids.take(slots) == ids.take(missed), slots, EMPTY)
        return found

    def insert(self, slots: IntArray) -> None:
        """Write ``slots`` (n,), whose ids are distinct, where ``find`` will look."""
        if not self._place(slots):  # ids that chase each other in a circle, once in many billions of calls
            self._rebuild()

    def _rebuild(self) -> None:
        """Place everybody anew by another hash."""
        while True:
            self._factors *= _NEXT  # odd times odd is odd
            self._cells.fill(self._ids.size - 1)
            if self._place(np.flatnonzero(self._ids != EMPTY)):
                return

    def _place(self, slots: IntArray) -> bool:
        """Write slots into cells, moving others; whether that came to an end."""
        left = np.full(slots.size, EMPTY)  # the cell that a slot was moved out of
        for _ in range(_MAX_MOVES):
            if not slots.size:
                break
            first, second = self._cells_of(self._ids.take(slots))
            cell = np.where(first == left, second, first)
            other = np.where(first == left, first, second)
            taken = self._taken(cell)
            spare = np.flatnonzero(taken)
            spare = spare[~self._taken(other.take(spare))]
            cell[spare], taken[spare] = other.take(spare), False
            there = self._cells.take(cell).astype(np.int64)
            taken &= there != slots
            self._cells[cell] = slots  # of several slots for one cell one wins, the others try again
            lost = self._cells.take(cell) != slots
            moved = np.flatnonzero(taken & ~lost)
            slots = np.concatenate([slots[lost], there.take(moved)])
            left = np.concatenate([left[lost], cell.take(moved)])
        return not slots.size

    def _taken(self, cell: IntArray) -> BoolArray:
        """Whether the slot in each cell (n,) has an id that belongs there."""
        ids = self._ids.take(self._cells.take(cell))
        first, second = self._cells_of(ids)
        taken: BoolArray = (ids != EMPTY) & ((first == cell) | (second == cell))
        return taken
