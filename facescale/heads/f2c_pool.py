"""F2C's pool: which rows a batch of gallery features writes, and what a query sees."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from facescale.heads.slot_head import last_of
from facescale.pools import IntArray


@dataclass(frozen=True)
class Writes:
    """What a batch of gallery features does to the pool.

    Attributes:
        slots: for each row of a slot, the distinct slots in which that row is written, ascending.
        sources: for each row, the place in the batch of the feature that is written last.
        double: slots whose second row counts in the mixed comparison, ascending.
        turned: slots whose toggle is set.
        toggles: to what.
    """

    slots: tuple[IntArray, ...]
    sources: tuple[IntArray, ...]
    double: IntArray
    turned: IntArray
    toggles: IntArray


def plan_writes(
    ids: IntArray,
    before: IntArray,
    slots: IntArray,
    toggles: IntArray,
    compat: bool = False,
    rows_per_id: int = 2,
) -> Writes:
    """What follows from writing a batch of features one after the other.

    A feature of a new identity goes to row 0 of its slot, and the toggle is set to 1. One of a known identity
    goes to the row that the toggle names, which then flips, and the slot counts as double. If slots have one
    row, all features go there.

    Args:
        ids: of the features, (N,).
        before: slot of each id before the batch, or EMPTY.
        slots: slot that the pool gave each.
        toggles: of all slots.
        compat: a slot stays double if its identity is evicted and replaced within the batch, as released.
        rows_per_id: rows of a slot, 2 or 1.
    """
    order = slots.argsort(kind="stable")
    slot, id_, place = slots[order], ids[order], np.arange(slots.size)
    starts = np.concatenate([[True], slot[1:] != slot[:-1]])[: slots.size]
    same = np.concatenate([[False], id_[1:] == id_[:-1]])[: slots.size]
    known = np.where(starts, before[order] == slot, same)
    begin = np.maximum.accumulate(np.where(starts | ~known, place, 0))  # of this identity's stay in the slot
    row = (place - begin + np.where(known[begin], toggles[slot], 0)) % rows_per_id
    last = last_of(slot)
    stays = slice(None) if compat else begin == begin[last].repeat(np.diff(last, prepend=-1))
    written = [np.flatnonzero(row == plane) for plane in range(rows_per_id)]
    kept = [places[last_of(slot[places])] for places in written]
    return Writes(
        slots=tuple(slot[places] for places in kept),
        sources=tuple(order[places] for places in kept),
        double=np.unique(slot[stays][known[stays]]),
        turned=slot[last],
        toggles=1 - row[last],
    )


class PoolView:
    """Rows of this process, some of them replaced, without touching them.

    Args:
        base_SD: the rows.
        places: distinct places that are replaced, ascending.
        place_N: the same where the rows are.
        rows_ND: by what.
        count: first places that count.
    """

    def __init__(
        self, base_SD: Tensor, places: IntArray, place_N: Tensor, rows_ND: Tensor, count: int
    ) -> None:
        self._base_SD, self._places, self._place_N = base_SD, places, place_N
        self._rows_ND, self._count = rows_ND, count

    def chunks(self, size: int, column_G: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Parts of the rows, and the cells of each sample's own place in them."""
        for start in range(0, self._count, size):
            stop = min(start + size, self._count)
            rows_CD = self._base_SD[start:stop]
            low, high = np.searchsorted(self._places, [start, stop])
            if low < high:
                rows_CD = rows_CD.clone()
                rows_CD[self._place_N[low:high] - start] = self._rows_ND[low:high].to(rows_CD.dtype)
            place_C1 = torch.arange(start, stop, device=rows_CD.device)[:, None]
            yield rows_CD, None if column_G is None else place_C1 == column_G

    def at(self, place_M: Tensor) -> Tensor:
        """Rows (M, D) at any places; zeros for places of other processes (or -1)."""
        base_SD, place_N = self._base_SD, self._place_N
        if not len(base_SD):
            return base_SD.new_zeros(len(place_M), base_SD.shape[1])
        inside_M = (place_M >= 0) & (place_M < len(base_SD))
        rows_MD = base_SD[place_M.clamp(0, len(base_SD) - 1)].masked_fill_(~inside_M[:, None], 0)
        if not len(place_N):
            return rows_MD
        at_M = torch.searchsorted(place_N, place_M).clamp_(max=len(place_N) - 1)
        new_M1 = (place_N[at_M] == place_M)[:, None]
        return torch.where(new_M1, self._rows_ND[at_M].to(base_SD.dtype), rows_MD)
