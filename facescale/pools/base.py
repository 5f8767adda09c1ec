"""What heads ask of a pool, and what all pools do alike. No torch here."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from facescale.arrays import BoolArray, IntArray
from facescale.pools.slot_table import EMPTY

State = dict[str, IntArray]


class Pool(ABC):
    """Slots and the identities in them; calls that take slots can be undone.

    Attributes:
        slot_ids: int64 (capacity,), the identity in each slot, or EMPTY.
    """

    slot_ids: IntArray
    _undo: list[Any]  # of each open ``try_get``, what ``_revert`` needs

    @property
    @abstractmethod
    def bytes(self) -> int:
        """Memory of the bookkeeping."""

    @property
    def loop_bytes(self) -> int:
        """Memory of compiled code beside the bookkeeping."""
        return 0

    @abstractmethod
    def __len__(self) -> int:
        """Occupied slots; they are the first ones."""

    def get(self, ids: IntArray) -> IntArray:
        """Give every id of ``ids`` (B,), one after the other, a slot; returns int64 (B,).

        Raises:
            ValueError: negative ids, or ``try_get`` calls are neither committed nor rolled back.
        """
        if self._undo:
            raise ValueError(f"{len(self._undo)} try_get calls are open; commit or roll them back before get")
        slots = self.try_get(ids)
        self.commit()
        return slots

    @abstractmethod
    def try_get(self, ids: IntArray) -> IntArray:
        """Like ``get``, to be confirmed by ``commit`` or undone by ``rollback``."""

    def commit(self) -> None:
        """Confirm all ``try_get`` calls so far."""
        self._undo.clear()

    def rollback(self, count: int | None = None) -> None:
        """Undo the last ``count`` ``try_get`` calls (all by default) exactly."""
        for _ in range(len(self._undo) if count is None else min(count, len(self._undo))):
            self._revert(self._undo.pop())

    @abstractmethod
    def _revert(self, change: Any) -> None:
        """Undo what is now the last ``try_get``."""

    @abstractmethod
    def view(self, ids: IntArray) -> IntArray:
        """A slot of each id (B,), or EMPTY; nothing changes."""

    def contains(self, ids: IntArray) -> BoolArray:
        """Whether each id (B,) has a slot; nothing changes."""
        return np.not_equal(self.view(ids), EMPTY)

    @abstractmethod
    def state(self) -> State:
        """Everything that ``restore`` needs."""

    @abstractmethod
    def restore(self, state: State) -> None:
        """Continue from a ``state``."""


def as_ids(ids: IntArray) -> IntArray:
    """Flat int64 ids.

    Raises:
        ValueError: negative ids.
    """
    ids = np.asarray(ids, dtype=np.int64).reshape(-1)
    if ids.size and ids.min() < 0:
        raise ValueError(f"ids must be 0 or larger, got {ids.min()}; map labels to 0..num_ids-1 first")
    return ids


def check_capacity(capacity: int) -> int:
    """Return ``capacity`` if it is valid.

    Raises:
        ValueError: less than one slot.
    """
    if capacity < 1:
        raise ValueError(
            f"a pool needs at least 1 slot, got {capacity}; raise its size or its share of the ids"
        )
    return capacity
