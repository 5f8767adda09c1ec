"""What heads ask of a pool, and what all pools check. No torch here."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from facescale.pools.table import Ints

State = dict[str, Ints]


class Pool(Protocol):
    """What heads ask of a pool.

    Attributes:
        slot_ids: int64 (capacity,), who sits in each slot, or EMPTY.
    """

    slot_ids: Ints

    @property
    def bytes(self) -> int:
        """Memory of the bookkeeping."""

    def __len__(self) -> int:
        """Slots that somebody sits in; they are the first ones."""

    def get(self, ids: Ints) -> Ints:
        """Give every id of a batch, one after the other, a slot; returns int64 (B,)."""

    def try_get(self, ids: Ints) -> Ints:
        """Like ``get``, to be confirmed by ``commit`` or undone by ``rollback``."""

    def commit(self) -> None:
        """Confirm all ``try_get`` calls so far."""

    def rollback(self, count: int | None = None) -> None:
        """Undo the last ``count`` ``try_get`` calls (all by default) exactly."""

    def view(self, ids: Ints) -> Ints:
        """A slot of each id, or EMPTY."""

    def state(self) -> State:
        """Everything that ``restore`` needs."""

    def restore(self, state: State) -> None:
        """Continue from a ``state``."""


def as_ids(ids: Ints) -> Ints:
    """Flat int64 ids; negative ones are an error."""
    ids = np.asarray(ids, dtype=np.int64).reshape(-1)
    if ids.size and ids.min() < 0:
        raise ValueError(f"ids must be 0 or larger, got {ids.min()}; map labels to 0..num_ids-1 first")
    return ids


def check_capacity(capacity: int) -> int:
    """At least one slot."""
    if capacity < 1:
        raise ValueError(
            f"a pool needs at least 1 slot, got {capacity}; raise its size or its share of the ids"
        )
    return capacity


def check_settled(undo: Sequence[object]) -> None:
    """No ``try_get`` is open."""
    if undo:
        raise ValueError(f"{len(undo)} try_get calls are open; commit or roll them back before get")
