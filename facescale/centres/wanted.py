"""Which rows of a checkpoint a process wants, and where they go."""

import torch
from torch import Tensor

from facescale.centres.store import CentreStore

# R rows of a block


class Wanted:
    """Which saved rows this process wants, and where they go."""

    def __init__(self, store: CentreStore, old_ids: Tensor | None) -> None:
        self._first_row, self._num_rows = store.first_row, store.num_rows
        self._old_row: Tensor | None = None
        if old_ids is not None:
            mine = old_ids[store.first_id : store.stop_id]
            known = torch.nonzero(mine >= 0)[:, 0]
            self._old_row, order = store.rows_of(mine[known]).sort(stable=True)
            self._row = store.rows_of(known)[order]

    def overlaps(self, start: int, stop: int) -> bool:
        """Whether any of the saved rows start to stop is wanted."""
        if self._old_row is None:
            return start < self._first_row + self._num_rows and stop > self._first_row
        at = torch.searchsorted(self._old_row, torch.tensor([start, stop]))
        return bool(at[0] < at[1])

    def find(self, old_row_R: Tensor) -> tuple[Tensor, Tensor]:
        """Local rows that want some of the given saved rows (ascending), and the places of these."""
        if self._old_row is None:
            place = torch.nonzero(
                (old_row_R >= self._first_row) & (old_row_R < self._first_row + self._num_rows)
            )[:, 0]
            return old_row_R[place] - self._first_row, place
        start = int(torch.searchsorted(self._old_row, old_row_R[0]))
        stop = int(torch.searchsorted(self._old_row, old_row_R[-1], right=True))
        old, rows = self._old_row[start:stop], self._row[start:stop]
        place = torch.searchsorted(old_row_R, old)
        there = old_row_R[place] == old
        return rows[there], place[there]
