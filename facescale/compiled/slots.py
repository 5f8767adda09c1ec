"""The table and the order of use of ``pools.LruPool`` id by id; importing this needs numba.

A batch of random ids waits for memory far longer than it computes. So all that a batch will look at is read
first, in loops whose reads do not depend on each other and overlap; then the ids are taken one by one.
"""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_HALF = np.uint64(32)
NOBODY, UNTOUCHED = -1, -2  # in ``take``: the slot was free; the slot kept its id

Table = tuple[NDArray[Any], NDArray[np.int64], NDArray[np.uint64], np.uint64, int]
"""Cells, id of each slot, factors and shift of ``SlotTable``, and how many others may be moved for a slot."""


@numba.njit(nogil=True, cache=True, inline="always")
def _cells_of(id_: int, table: Table) -> tuple[Any, Any]:
    """The two cells of an id, see ``SlotTable._cells_of``."""
    factors, shift = table[2], table[3]
    first = np.uint64(id_)
    first = (first ^ (first >> _HALF)) * factors[0]
    second = (first ^ (first >> _HALF)) * factors[1]
    return np.int64(first >> shift), np.int64(second >> shift)


@numba.njit(nogil=True, cache=True, inline="always")
def _slot_of(id_: int, table: Table) -> int:
    """Slot of one id, or -1."""
    cells, owners = table[0], table[1]
    first, second = _cells_of(id_, table)
    if owners[cells[first]] == id_:
        return int(cells[first])
    return int(cells[second]) if owners[cells[second]] == id_ else -1


@numba.njit(nogil=True, cache=True)
def find(id_N: NDArray[np.int64], table: Table, slot_N: NDArray[np.int64]) -> int:
    """Slot of each id into ``slot_N``, or -1; returns how many have none."""
    cells, owners = table[0], table[1]
    for n in range(len(id_N)):
        slot_N[n] = cells[_cells_of(id_N[n], table)[0]]
    missing = 0
    for n in range(len(id_N)):
        if owners[slot_N[n]] != id_N[n]:
            slot_N[n] = _slot_of(id_N[n], table)
            missing += slot_N[n] < 0
    return missing


@numba.njit(nogil=True, cache=True)
def _free(cell: int, slot: int, table: Table) -> bool:
    """Whether ``slot`` may be written there: it is already, or what is written does not belong there."""
    cells, owners = table[0], table[1]
    there = cells[cell]
    if there == slot or owners[there] < 0:
        return True
    first, second = _cells_of(owners[there], table)
    return bool(first != cell and second != cell)


@numba.njit(nogil=True, cache=True)
def _place(slot: int, table: Table) -> bool:
    """Write a slot into a cell of its id, moving others to their second cell; False if that goes round."""
    cells, owners, left = table[0], table[1], -1
    for _ in range(table[4]):
        first, second = _cells_of(owners[slot], table)
        cell = second if first == left else first
        free = _free(cell, slot, table)
        other = first if cell == second else second
        if not free and other != left and _free(other, slot, table):
            cell, free = other, True
        moved = cells[cell]
        cells[cell] = slot
        if free:
            return True
        slot, left = int(moved), cell
    return False


@numba.njit(nogil=True, cache=True)
def place(slot_N: NDArray[np.int64], table: Table) -> bool:
    """Write slots where ``find`` looks for their ids; False if one chases the others round."""
    done = True
    for n in range(len(slot_N)):
        done = done and _place(slot_N[n], table)
    return done


@numba.njit(nogil=True, cache=True)
def take(
    id_N: NDArray[np.int64],
    start: int,
    table: Table,
    log: NDArray[Any],
    last: NDArray[Any],
    used: int,
    tail: int,
    head: int,
    slot_N: NDArray[np.int64],
    last_N: NDArray[Any],
    old_id_N: NDArray[np.int64],
) -> tuple[int, bool, int, int, int]:
    """Use ids from place ``start`` on, one by one.

    Args:
        id_N: ids.
        start: where to begin.
        table: where the ids are found.
        log: slots in the order of use; an entry counts while it is the last one of its slot.
        last: place in the log of each slot's last entry.
        used: slots that somebody has.
        tail: first entry of the log that may count.
        head: entries of the log.
        slot_N: becomes the slot of each id at its turn.
        last_N: becomes what ``last`` was for this slot before.
        old_id_N: becomes the id that had the slot, NOBODY or UNTOUCHED.

    Returns:
        Place after the last id that was taken; False if that was the last one because the table wants another
        hash; ``used``; ``head``; and a place in the log before which no entry counted at the start.
    """
    owners = table[1]
    missing = find(id_N[start:], table, slot_N[start:])
    seen = 0  # of no use, but compilers leave out what has none
    for n in range(start, len(id_N)):
        if slot_N[n] >= 0:
            seen += last[slot_N[n]]
    if missing > len(last) - used:
        while tail < head and last[log[tail]] != tail:
            tail += 1
        for entry in range(tail, min(head, tail + 4 * missing)):
            seen += last[log[entry]]
        for entry in range(tail, min(head, tail + 4 * missing)):
            if last[log[entry]] == entry:
                seen += owners[log[entry]]
    oldest, n, placed = tail, start, True
    while n < len(id_N) and placed:
        id_ = id_N[n]
        slot = slot_N[n]
        if slot < 0 or owners[slot] != id_:  # it may have come or gone since
            slot = _slot_of(id_, table)
        old_id_N[n] = UNTOUCHED
        if slot < 0:
            if used < len(last):
                slot, old_id_N[n] = used, NOBODY
                used += 1
            else:
                while last[log[oldest]] != oldest:
                    oldest += 1
                slot = int(log[oldest])
                old_id_N[n] = owners[slot]
            owners[slot] = id_
            placed = _place(slot, table)
        slot_N[n] = slot
        last_N[n] = last[slot]
        last[slot] = head
        log[head] = slot
        head += 1
        n += 1
    return n, placed and seen > -(2**62), used, head, tail
