"""F2C: a small pool of class centres in which identities take turns, compared crosswise with two views."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from facescale.distributed import Dist
from facescale.heads import f2c_by_kernels
from facescale.heads.base import Bytes, HeadOutput, Needs
from facescale.heads.f2c_by_kernels import PlannedPass
from facescale.heads.f2c_pool import PoolView, Writes, nearest
from facescale.heads.f2c_slots import F2CSlots
from facescale.heads.fused_softmax import unit_and_norm
from facescale.heads.slot_head import on
from facescale.heads.softmax import sample_losses, with_batch_terms
from facescale.margins import Margin, TargetLogits
from facescale.ops import as_float, unit, without_autocast
from facescale.pools import EMPTY, IntArray

# V views, B batch of this process, G batch of all processes, O outliers, S slots of this process,
# N slots or places given, D embedding size


class F2CHead(F2CSlots):
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
            refresh=refresh,
            both=both,
            rows_per_id=rows_per_id,
            compat=compat,
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
        self.hard = hard or min(max(int(self.size * 0.0002), 3), 10)
        self.outlier_weight = outlier_weight
        pooled = self.kernels is not None and dist.world_size == 1
        self._pooled = f2c_by_kernels.kernels_of_pool(self.margin, self.hard, self.rows) if pooled else None

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
        id_VG = list(dist.gather_ids(id_VB.T.contiguous()).T.contiguous().numpy())
        fits = 0 < len(id_VG[0]) <= f2c_by_kernels.MAX_BATCH and q_VBD.dtype is torch.float32
        if self._pooled is not None and fits:
            return self._forward_by_kernels(q_VBD, id_VG, k_VBD.detach().float())
        x_VGD = [dist.gather_with_grad(q_BD) for q_BD in q_VBD]
        g_VGD = [dist.all_gather(unit(k_BD).to(q_VBD.dtype)) for k_BD in k_VBD.detach()]
        raw_GD = g_VGD[1]
        g_VGD = [self._refreshed(g_GD, id_G) for g_GD, id_G in zip(g_VGD, id_VG, strict=True)]
        first, _, _ = self._pass(x_VGD[0], id_VG[0], g_VGD[1], id_VG[1])
        self.pool.rollback(1)
        second, writes, stats = self._pass(x_VGD[1], id_VG[1], g_VGD[0], id_VG[0])
        if self.training:
            self._waiting = writes, g_VGD[0], raw_GD, id_VG[1], None
        else:
            self.pool.rollback(1)
        return HeadOutput((first + second).float(), stats)

    def _forward_by_kernels(self, q_VGD: Tensor, id_VG: list[IntArray], k_VGD: Tensor) -> HeadOutput:
        """What ``_forward`` computes: first all bookkeeping, then both passes at once."""
        module, margin, batch = self._pooled, self.margin, len(id_VG[0])
        assert module is not None
        rows_ND, refreshes = self.rows.flatten(0, 1), self.refresh < 1
        newer_VG = np.stack([self._newer(id_G) for id_G in id_VG]) if refreshes else np.empty(0, np.int64)
        passes = []
        for number in range(2):
            writes = self._assign_slots(id_VG[1 - number])
            passes.append(PlannedPass(writes, self.pool.view(id_VG[number]), self.num_counting))
            if number == 0 or not self.training:
                self.pool.rollback(1)
        sizes = self.rows_per_id, self.size, self.hard
        table = f2c_by_kernels.tables(passes, id_VG, newer_VG, sizes, self.outlier_weight, q_VGD)
        newer_B = table.newer_WG.flatten() if refreshes else None
        g_ND = module.renewed(k_VGD.flatten(0, 1).contiguous(), rows_ND, newer_B, self.refresh)
        unit_ND, norm_N = unit_and_norm(q_VGD.flatten(0, 1), by_kernels=True)
        rest = max(one.count for one in passes), self.hard, self.products
        cos_VG, value_VG, push_VG = f2c_by_kernels.compare(
            *(module, margin, unit_ND.view(q_VGD.shape), g_ND, rows_ND, table, rest)
        )
        logit_N = self.target_logits(TargetLogits(cos_VG.flatten()), table.id_VG.flatten())
        loss = f2c_by_kernels.total_loss(margin, logit_N.view_as(cos_VG), value_VG, push_VG, table)
        norm_VG = norm_N.view(2, batch)
        for number, view in enumerate(table.id_VG[:: self.rows_per_id]):
            loss = with_batch_terms(loss, margin, q_VGD[number], norm_VG[number], view)
        if self.training:
            raw_GD = unit(k_VGD[1]) if refreshes and self.both else g_ND[batch:]
            self._waiting = passes[1].writes, g_ND, raw_GD, id_VG[1], table
        stats = {
            "target_cosine": cos_VG[-1].detach().index_select(0, table.known_K).mean(),
            "norm": norm_VG[1].detach().mean(),
            "outliers": torch.tensor(1 - len(table.known_K) / batch),
        }
        return HeadOutput(loss, stats)

    def _pass(
        self, x_GD: Tensor, id_G: IntArray, g_GD: Tensor, gallery_id_G: IntArray
    ) -> tuple[Tensor, Writes, dict[str, Tensor]]:
        """Compare the probes with the pool as it would be with the gallery features in it."""
        margin, writes = self.margin, self._assign_slots(gallery_id_G)
        slot_G = self.pool.view(id_G)
        shared_GD = self.dist.shared(x_GD)
        unit_GD, norm_G = unit_and_norm(shared_GD, self.kernels is not None)
        known, unknown = np.flatnonzero(slot_G != EMPTY), np.flatnonzero(slot_G == EMPTY)
        sizes, order = [len(known), len(unknown)], np.concatenate([known, unknown])
        order_G, known_P, id_P, ids = on(x_GD, order, slot_G[known] - self.first, id_G[known], id_G)
        e_PD, e_OD = unit_GD.index_select(0, order_G).split(sizes)
        shared_PD, shared_OD = e_PD, e_OD
        if shared_GD is not x_GD:
            e_PD = unit(x_GD).index_select(0, order_G[: len(known)])
        norm_P = norm_G.index_select(0, order_G[: len(known)])
        most = min(self.hard, self.size if self.compat else len(self.pool))
        loss = x_GD.new_zeros(())
        for view in self._views(writes, g_GD):
            found_PD = self.dist.all_reduce(view.at(known_P)).to(x_GD.dtype)
            target = margin.prepare(torch.linalg.vecdot(shared_PD, found_PD), norm_P)
            value_P = self.negatives(e_PD, target, partial(view.chunks, known_P))
            loss_P = sample_losses(margin, self.target_logits(target, id_P), value_P)
            loss = loss + loss_P.sum() / max(1, len(known))
            if len(unknown) and self.outlier_weight:
                loss = loss + self.outlier_weight * nearest(shared_OD, view, most, self.dist)
        loss = with_batch_terms(loss, margin, shared_GD, norm_G, ids)
        stats = {
            "target_cosine": target.cos_B.detach().mean(),
            "norm": norm_G.detach().mean(),
            "outliers": torch.tensor(len(unknown) / max(1, len(id_G))),
        }
        return loss, writes, stats

    def _views(self, writes: Writes, g_GD: Tensor) -> Iterator["PoolView"]:
        """The pool after the writes: first rows; then (of two) with the second ones of refreshed slots."""
        places, sources = [], []
        for slots, written in zip(writes.slots, writes.sources, strict=True):
            mine = self.mine(slots)
            places.append(slots[mine] - self.first)
            sources.append(written[mine])
        more = self.num_counting, self.chunk, self.dist.world_size == 1
        place_N, source_N = on(g_GD, places[0], sources[0])
        yield PoolView(self.rows[0], places[0], place_N, g_GD[source_N], *more)
        if self.rows_per_id == 1:
            return
        double = writes.double[self.mine(writes.double)] - self.first
        single = ~np.isin(places[0], double)
        _, new, at = np.intersect1d(double, places[1], assume_unique=True, return_indices=True)
        old = np.setdiff1d(double, double[new], assume_unique=True)
        over = np.concatenate([places[0][single], double[new], old])
        order = over.argsort()
        source = np.concatenate([sources[0][single], sources[1][at]])
        source_N, old_N, order_N, over_N = on(g_GD, source, old, order, over[order])
        rows_ND = torch.cat([g_GD[source_N], self.rows[1, old_N].to(g_GD.dtype)])[order_N]
        yield PoolView(self.rows[0], over[order], over_N, rows_ND, *more)

    def bytes_needed(self, batch_size: int) -> Bytes:
        """Rows on the device, the pool's bookkeeping on the host; for a batch with a quarter of outliers."""
        planned = self.slot_bytes(batch_size, embeddings=17, share=0.75, copied=True)
        if self._pooled is not None:  # which row is which class in each view
            planned = replace(planned, transient=planned.transient + 16 * self.rows_per_id * self.size)
        return replace(planned, host=planned.host + self.toggles.nbytes + self.pool.loop_bytes)
