"""F2C: a small pool of class centres in which identities take turns, compared crosswise with two views."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facescale.distributed import Dist
from facescale.heads.base import Bytes, HeadOutput, Needs
from facescale.heads.f2c_pool import PoolView, Writes, plan_writes
from facescale.heads.slot_head import SlotHead, on
from facescale.heads.softmax import sample_losses, with_batch_terms
from facescale.margins import Margin
from facescale.ops import as_float, unit, without_autocast
from facescale.pools import EMPTY, IntArray, LruPool

# V views, B batch of this process, G batch of all processes, O outliers, S slots of this process,
# N slots or places given, D embedding size


class F2CHead(SlotHead):
    """Margin loss against a pool that holds some of the identities at a time (Wang et al., F2C, CVPR 2022).

    A batch has two views x and y of which the first part shows the same identities and the rest does not
    (``Needs.identity_pairs``; ids are (2, B)). Two passes: probes x with gallery features of y, then probes y
    with gallery features of x. In a pass the gallery features go into the pool (two rows per slot, least
    recently used identities give way), then the probes are compared with it, once with the first rows and
    once with the second rows of the slots that this pass has refreshed. Probes whose identity has a slot get
    the margin loss; those without (outliers) are pushed away from their ``hard`` nearest slots: mean of the
    cosines, below 0 cut to 0. The loss is the sum over both passes of both comparisons. The first pass leaves
    the pool as it was, the second one's features stay after the optimizer's step.

    Both passes are computed on top of the pool, which itself changes between steps only. So gradients are
    right in any precision.

    What the release does not have: a centre of one image is a noisy one, so with ``refresh`` below 1 a known
    identity's feature is written as unit((1 - refresh) newer row + refresh feature), a moving average over
    its images. With ``both`` the features of y stay behind those of x, so that the average goes over twice
    as many. With ``rows_per_id`` = 1 there is no second, older row and no second comparison.

    ``compat``, as released: empty slots hold random directions and count; see also
    ``plan_writes``. The released losses AM, Arc and SV are the margins cosface, arcface and sv_softmax
    (compat) with scale 32 and m 0.4.

    State: the pool, the toggles; the rows by ``save_rows``.

    Source: https://arxiv.org/abs/2105.10375

    Example:
        >>> head = facescale.heads.build("f2c", 1000, 16, "cosface", share=0.1)
        >>> q_VBD = torch.randn(2, 8, 16, requires_grad=True)  # views x and y
        >>> k_VBD = torch.randn(2, 8, 16)  # the same images, embedded by the twin
        >>> head(q_VBD, torch.arange(8), k_VBD).loss.backward()
        >>> head.after_step(lr=0.1)

    Args:
        num_ids: number of identities.
        embedding_size: D.
        margin: what happens to the cosines.
        dist: this process among its peers.
        size: slots of the pool; 0 takes ``share`` of the identities.
        share: share of the identities that have a slot, where ``size`` is 0.
        hard: nearest slots that an outlier is pushed from; 0 is the release's min(max(size / 5000, 3), 10).
        outlier_weight: weight of the outliers' term.
        refresh: weight of a feature against the identity's newer row; 1 is the feature alone, as released.
        both: after a step the features of both views stay; as released only those of x do.
        rows_per_id: rows of a slot, 2 or 1.
        products: precision of the matrix products: "auto", "float32" or "bfloat16".
        chunk: slots compared with at a time; 0 is a good size for the device.
        compat: as released: slots not yet taken hold random directions and count.
        seed: seed of the random directions.

    Raises:
        ValueError: an option out of range, or options that do not go together.
    """

    needs = Needs(query_views=2, key_views=2, identity_pairs=True)
    pool: LruPool

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        margin: Margin,
        dist: Dist,
        *,
        size: int = 0,
        share: float = 0.01,
        hard: int = 0,
        outlier_weight: float = 1.0,
        refresh: float = 1.0,
        both: bool = False,
        rows_per_id: int = 2,
        products: str = "auto",
        chunk: int = 0,
        compat: bool = False,
        seed: int = 0,
    ) -> None:
        if rows_per_id not in (1, 2):
            raise ValueError(f"rows_per_id of f2c is {rows_per_id}; it is 2, as released, or 1")
        super().__init__(
            num_ids,
            embedding_size,
            margin,
            dist,
            size=size,
            share=share,
            planes=rows_per_id,
            unique=True,
            random=compat,
            products=products,
            chunk=chunk,
            seed=seed,
        )
        if hard < 0 or outlier_weight < 0:
            raise ValueError(
                f"f2c got hard={hard}, outlier_weight={outlier_weight}; give 0 or more (hard = 0: the rule)"
            )
        if not 0 < refresh <= 1:
            raise ValueError(f"refresh is {refresh}; it lies above 0 up to 1 (1: the feature alone)")
        self.refresh, self.both, self.rows_per_id = refresh, both, rows_per_id
        self.hard = hard or min(max(int(self.size * 0.0002), 3), 10)
        self.outlier_weight, self.compat = outlier_weight, compat
        self.toggles = np.zeros(self.size, np.int64)
        # Of the last part of a step, not yet in the rows: what x does, and features and identities of y.
        self._waiting: tuple[Writes, Tensor, Tensor, IntArray] | None = None
        self._undo: list[tuple[int, Tensor, Tensor]] = []  # rows that earlier parts of the step replaced
        self._old_toggles: list[tuple[IntArray, IntArray]] = []

    def forward(self, q_VBD: Tensor, id_B: Tensor, k_VBD: Tensor | None = None) -> HeadOutput:
        """Sum of four mean losses over the global batch (two with one row); see ``ClassHead.forward``.

        Args:
            q_VBD: probe features of x and y.
            id_B: identities of x and y, (2, B), or (B,) if they are the same.
            k_VBD: gallery features of x and y.

        Raises:
            ValueError: not two views of each.
        """
        if k_VBD is None or len(q_VBD) != 2 or len(k_VBD) != 2:
            given = 0 if k_VBD is None else len(k_VBD)
            raise ValueError(f"f2c got {len(q_VBD)} probe and {given} gallery views; give x and y of both")
        with without_autocast(q_VBD.device):
            return self._forward(as_float(q_VBD), id_B.expand(2, -1), k_VBD)

    def _forward(self, q_VBD: Tensor, id_VB: Tensor, k_VBD: Tensor) -> HeadOutput:
        self._write_waiting()  # what an earlier part of the step (gradient accumulation) has left
        dist = self.dist
        x_VGD = [dist.gather_with_grad(q_BD) for q_BD in q_VBD]
        g_VGD = [dist.all_gather(unit(k_BD).to(q_VBD.dtype)) for k_BD in k_VBD.detach()]
        id_VG = list(dist.gather_ids(id_VB.T.contiguous()).T.contiguous().numpy())
        raw_GD = g_VGD[1]
        g_VGD = [self._refreshed(g_GD, id_G) for g_GD, id_G in zip(g_VGD, id_VG, strict=True)]
        first, _, _ = self._pass(x_VGD[0], id_VG[0], g_VGD[1], id_VG[1])
        self.pool.rollback(1)
        second, writes, stats = self._pass(x_VGD[1], id_VG[1], g_VGD[0], id_VG[0])
        if self.training:
            self._waiting = writes, g_VGD[0], raw_GD, id_VG[1]
        else:
            self.pool.rollback(1)
        return HeadOutput((first + second).float(), stats)

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

    def _pass(
        self, x_GD: Tensor, id_G: IntArray, g_GD: Tensor, gallery_id_G: IntArray
    ) -> tuple[Tensor, Writes, dict[str, Tensor]]:
        """Compare the probes with the pool as it would be with the gallery features in it."""
        margin, writes = self.margin, self._assign_slots(gallery_id_G)
        slot_G = self.pool.view(id_G)
        shared_GD = self.dist.shared(x_GD)
        norm_G = shared_GD.norm(dim=1)
        known, unknown = np.flatnonzero(slot_G != EMPTY), np.flatnonzero(slot_G == EMPTY)
        inside, outside, known_P, id_P, ids = on(
            x_GD, known, unknown, slot_G[known] - self.first, id_G[known], id_G
        )
        e_PD, shared_PD = unit(x_GD[inside]), unit(shared_GD[inside])
        loss = x_GD.new_zeros(())
        for view in self._views(writes, g_GD):
            found_PD = self.dist.all_reduce(view.at(known_P)).to(x_GD.dtype)
            target = margin.prepare(torch.linalg.vecdot(shared_PD, found_PD), norm_G[inside])
            value_P = self.negatives(e_PD, target, partial(view.chunks, self.chunk, known_P))
            loss_P = sample_losses(margin, self.target_logits(target, id_P), value_P)
            loss = loss + loss_P.sum() / max(1, len(inside))
            if len(outside) and self.outlier_weight:
                loss = loss + self.outlier_weight * self._nearest(unit(shared_GD[outside]), view)
        loss = with_batch_terms(loss, margin, shared_GD, norm_G, ids)
        stats = {
            "target_cosine": target.cos_B.detach().mean(),
            "norm": norm_G.detach().mean(),
            "outliers": torch.tensor(len(outside) / max(1, len(id_G))),
        }
        return loss, writes, stats

    def _assign_slots(self, id_G: IntArray) -> Writes:
        """Assign slots to identities, and plan what their features write there."""
        before, slots = self.pool.view(id_G), self.pool.try_get(id_G)
        return plan_writes(id_G, before, slots, self.toggles, self.compat, self.rows_per_id)

    def _nearest(self, e_OD: Tensor, view: "PoolView") -> Tensor:
        """Mean cosine of outliers to their nearest slots, below 0 cut to 0."""
        most = min(self.hard, self.size if self.compat else len(self.pool))
        top_ON = e_OD.new_full((len(e_OD), most), -torch.inf)
        place_ON = torch.full((len(e_OD), most), EMPTY, device=e_OD.device)
        with torch.no_grad():
            start = 0
            for rows_CD, _ in view.chunks(self.chunk, None):
                near_ON, index_ON = (e_OD @ rows_CD.T.to(e_OD.dtype)).topk(min(most, len(rows_CD)), 1)
                top_ON, kept_ON = torch.cat([top_ON, near_ON], 1).topk(most, 1)
                place_ON = torch.cat([place_ON, index_ON + start], 1).gather(1, kept_ON)
                start += len(rows_CD)
            rows_ND = view.at(place_ON.flatten())  # zeros where a process has fewer: no push
            rows_1OND = rows_ND.view(1, len(e_OD), most, -1)
            rows_OND = self.dist.all_gather(rows_1OND).transpose(0, 1).flatten(1, 2).to(e_OD.dtype)
        cos_ON: Tensor = torch.linalg.vecdot(e_OD[:, None], rows_OND)
        return cos_ON.topk(most, 1).values.clamp_min(0).mean()

    def _views(self, writes: Writes, g_GD: Tensor) -> Iterator["PoolView"]:
        """The pool after the writes: first rows; then (of two) with the second ones of refreshed slots."""
        places, sources = [], []
        for slots, written in zip(writes.slots, writes.sources, strict=True):
            mine = self.mine(slots)
            places.append(slots[mine] - self.first)
            sources.append(written[mine])
        count = self.num_counting
        if self.rows_per_id == 1:
            place_N, source_N = on(g_GD, places[0], sources[0])
            yield PoolView(self.rows[0], places[0], place_N, g_GD[source_N], count)
            return
        double = writes.double[self.mine(writes.double)] - self.first
        single = np.flatnonzero(~np.isin(places[0], double))
        over = np.concatenate([places[0][single], double])
        order = over.argsort()
        arrays = (*places, *sources, double, single, order, over[order])
        place_N, second_N, source_N, other_N, double_N, single_N, order_N, over_N = on(g_GD, *arrays)
        first_ND = g_GD[source_N]
        yield PoolView(self.rows[0], places[0], place_N, first_ND, count)
        second = PoolView(self.rows[1], places[1], second_N, g_GD[other_N], count)
        rows_ND = torch.cat([first_ND[single_N], second.at(double_N).to(g_GD.dtype)])
        yield PoolView(self.rows[0], over[order], over_N, rows_ND[order_N], count)

    def _write_waiting(self) -> None:
        """Put the waiting features into the rows."""
        if self._waiting is None:
            return
        writes, g_GD, other_GD, other_id_G = self._waiting
        self._waiting = None
        self._write(writes, g_GD)
        if self.both:
            other_GD = self._refreshed(other_GD, other_id_G)
            self._write(self._assign_slots(other_id_G), other_GD)

    def _write(self, writes: Writes, g_GD: Tensor) -> None:
        """Put features into the rows, so that it can be undone."""
        for plane, (slots, sources) in enumerate(zip(writes.slots, writes.sources, strict=True)):
            mine = self.mine(slots)
            place_M, source_M = on(self.rows, slots[mine] - self.first, sources[mine])
            self._undo.append((plane, place_M, self.rows[plane, place_M]))
            self.rows[plane, place_M] = g_GD[source_M].to(self.rows.dtype)
        self._old_toggles.append((writes.turned, self.toggles[writes.turned]))
        self.toggles[writes.turned] = writes.toggles

    def finish_step(self, lr: float) -> None:
        """Keep the second pass's features."""
        self._write_waiting()
        self.pool.commit()
        self._undo.clear()
        self._old_toggles.clear()

    def skip_step(self) -> None:
        """Leave pool and rows as they were before the step."""
        self._waiting = None
        for plane, place_M, rows_MD in reversed(self._undo):
            self.rows[plane, place_M] = rows_MD
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

    def bytes_needed(self, batch_size: int) -> Bytes:
        """Rows on the device, the pool's bookkeeping on the host; for a batch with a quarter of outliers."""
        planned = self.slot_bytes(batch_size, embeddings=23, share=0.75, copied=True)
        return replace(planned, host=planned.host + self.toggles.nbytes + self.pool.loop_bytes)
