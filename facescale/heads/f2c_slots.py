"""F2C's rows and toggles: what a step writes there, and how that is undone."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from facescale.distributed import Dist
from facescale.heads.f2c_by_kernels import Tables
from facescale.heads.f2c_pool import Writes, plan_writes
from facescale.heads.slot_head import SlotHead, on
from facescale.margins import Margin
from facescale.ops import unit
from facescale.pools import EMPTY, IntArray, LruPool

# G batch of all processes, M rows written, N rows of all planes, D embedding size


class F2CSlots(SlotHead):
    """The pool of ``F2CHead``, which documents the options."""

    pool: LruPool

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        margin: Margin,
        dist: Dist,
        *,
        refresh: float,
        both: bool,
        rows_per_id: int,
        compat: bool,
        **slots: Any,
    ) -> None:
        options = {"planes": rows_per_id, "unique": True, "random": compat, **slots}
        super().__init__(num_ids, embedding_size, margin, dist, **options)
        self.refresh, self.both, self.rows_per_id, self.compat = refresh, both, rows_per_id, compat
        self.toggles = np.zeros(self.size, np.int64)
        # Of the last part of a step, not yet in the rows: what x does, and features and identities of y.
        self._waiting: tuple[Writes, Tensor, Tensor, IntArray, Tables | None] | None = None
        self._undo: list[tuple[Tensor, Tensor]] = []  # rows that earlier parts of the step replaced
        self._old_toggles: list[tuple[IntArray, IntArray]] = []

    def _newer(self, id_G: IntArray) -> IntArray:
        """Row of the pool with the newer feature of each identity, or EMPTY."""
        slot_G = self.pool.view(id_G)
        plane_G = 1 - self.toggles[slot_G] if self.rows_per_id == 2 else 0  # the toggle: written next
        return np.where(slot_G == EMPTY, EMPTY, plane_G * self.size + slot_G)

    def _refreshed(self, g_GD: Tensor, id_G: IntArray) -> Tensor:
        """The features, moved from what the pool has of these identities."""
        if self.refresh == 1:
            return g_GD
        slot_G = self.pool.view(id_G)
        old_GD = self.read(0, slot_G)
        if self.rows_per_id == 2:  # the toggle names the row written next
            (toggle_G,) = on(g_GD, self.toggles[slot_G])
            old_GD = torch.where(toggle_G[:, None] == 0, self.read(1, slot_G), old_GD)
        (slots_G,) = on(g_GD, slot_G)
        old_GD = old_GD.to(g_GD.dtype)
        return torch.where(slots_G[:, None] != EMPTY, unit(old_GD.lerp(g_GD, self.refresh)), g_GD)

    def _assign_slots(self, id_G: IntArray) -> Writes:
        """Assign slots to identities, and plan what their features write there."""
        before, slots = self.pool.view(id_G), self.pool.try_get(id_G)
        return plan_writes(id_G, before, slots, self.toggles, self.compat, self.rows_per_id)

    def _write_waiting(self) -> None:
        """Put the waiting features into the rows."""
        if self._waiting is None:
            return
        writes, g_GD, other_GD, other_id_G, table = self._waiting
        self._waiting = None
        self._write(writes, g_GD, table)
        if self.both:
            other_GD = self._refreshed(other_GD, other_id_G)
            self._write(self._assign_slots(other_id_G), other_GD)

    def _write(self, writes: Writes, g_GD: Tensor, table: Tables | None = None) -> None:
        """Put features into the rows, so that it can be undone."""
        rows_ND = self.rows.flatten(0, 1)
        place_M, source_M = (table.write_M, table.source_M) if table else self._places(writes)
        self._undo.append((place_M, rows_ND[place_M]))
        rows_ND[place_M] = g_GD[source_M].to(rows_ND.dtype)
        self._old_toggles.append((writes.turned, self.toggles[writes.turned]))
        self.toggles[writes.turned] = writes.toggles

    def _places(self, writes: Writes) -> list[Tensor]:
        """Rows (of all planes) of this process that are written, and the features that are."""
        places, sources = [], []
        for plane, (slots, written) in enumerate(zip(writes.slots, writes.sources, strict=True)):
            mine = self.mine(slots)
            places.append(plane * (self.stop - self.first) + slots[mine] - self.first)
            sources.append(written[mine])
        return on(self.rows, np.concatenate(places), np.concatenate(sources))

    def finish_step(self, lr: float) -> None:
        """Keep the second pass's features."""
        self._write_waiting()
        self.pool.commit()
        self._undo.clear()
        self._old_toggles.clear()

    def skip_step(self) -> None:
        """Leave pool and rows as they were before the step."""
        self._waiting = None
        for place_M, rows_MD in reversed(self._undo):
            self.rows.flatten(0, 1)[place_M] = rows_MD
        for slots, toggles in reversed(self._old_toggles):
            self.toggles[slots] = toggles
        self.pool.rollback()
        self._undo.clear()
        self._old_toggles.clear()

    def get_extra_state(self) -> dict[str, Any]:
        """Which identity is in which slot, and the toggles."""
        return {**super().get_extra_state(), "toggles": torch.from_numpy(self.toggles.copy())}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over what ``get_extra_state`` gave."""
        super().set_extra_state(state)
        toggles = state["toggles"].numpy()[: self.size]
        self.toggles[: toggles.size] = toggles
