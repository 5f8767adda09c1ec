"""Base of the heads with a centre for every identity: exact, without all logits or a gradient matrix."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from facescale.centres import by_identity
from facescale.centres import sharded_checkpoint as centres_saved
from facescale.centres.options import StoreOptions
from facescale.centres.store import CentreStore
from facescale.distributed import Dist
from facescale.files import Writing
from facescale.heads.base import Bytes, ClassHead, HeadOutput, check_ids
from facescale.heads.centre_softmax import negatives_value, target_cosines
from facescale.heads.class_chunks import ClassChunks, places_in
from facescale.heads.fused_softmax import fused_softmax, unit_and_norm
from facescale.heads.memory import centre_bytes, rows_kept
from facescale.heads.move_rows import move_rows
from facescale.heads.plain_softmax import softmax_for
from facescale.heads.saved_batch import SampledBatch, SavedBatch, moving
from facescale.heads.softmax import released_losses, sample_losses, with_batch_terms
from facescale.margins import Margin, TargetLogits
from facescale.ops import as_float, default_chunk, product_dtype, to_device, unit, without_autocast

LOGITS_MB = 128

# V views, B batch of this process, G batch of all processes, C classes, D embedding size


class CentreHead(ClassHead):
    """Margin loss against class centres that live in a ``CentreStore``, evaluated in chunks of classes.

    ``forward`` passes over the chunks once and computes the loss and its gradient by the embeddings.
    ``backward`` keeps the batch (unit embeddings and a few numbers per sample). ``after_step`` passes over
    the chunks again: it takes the logits of a chunk, kept or computed again, derives the gradient of its rows
    and updates these rows at once. So a C x D gradient never exists, nor more of the B x C logits than a
    given number of bytes, and the gradients are still exact:

    - gradient accumulation: all batches since the last step are kept, the sum of their gradients moves the
      rows once;
    - a scaled loss: set ``loss_scale``; it is divided out of the row gradients;
    - a skipped step: ``skip_step`` drops the batches before any row has changed. Batches that are not finite
      on any process are dropped likewise, by agreement of all processes (``skipped_steps``);
    - clipping: the norm of the row gradients is not known in advance, so rows are not clipped (the released
      Partial FC clips the backbone only, too).

    Classes are sharded over processes. Each process has all embeddings and its own classes; target cosines,
    log-sum-exp and loss are the same on all processes.

    Args:
        num_ids: number of identities.
        embedding_size: D.
        margin: what happens to the cosines.
        dist: this process among its peers.
        products: precision of matrix products: "float32", "bfloat16" (factors and results, as under autocast;
            target cosines, exponentials and sums over classes stay float32), or "auto" for bfloat16 where it
            is fast.
        chunk: classes evaluated at a time; 0 is a good size for the device.
        logits_mb: see ``FullHead``; of sampled classes, all are kept.
        compat: as released by Partial FC: -log p is cut at 69.08 in value (not in gradient), and identities
            that are -1 count as samples without a target class, with that loss.
        store: options of the ``CentreStore``.
        seed: of everything random here.
        dense_decay: see ``CentreStore``.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        margin: Margin,
        dist: Dist,
        *,
        products: str,
        chunk: int,
        compat: bool,
        seed: int,
        store: StoreOptions,
        dense_decay: bool = False,
        logits_mb: int = LOGITS_MB,
    ) -> None:
        super().__init__(num_ids, embedding_size, margin, dist)
        if chunk < 0:
            raise ValueError(f"chunk is {chunk} classes; it must be positive, or 0 for a good size")
        if logits_mb < 0:
            raise ValueError(f"logits_mb is {logits_mb}; it must be positive, or 0 to keep no logits")
        self.compat, self._logits_bytes = compat, logits_mb * 1_000_000
        self.products = product_dtype(products, dist.device)
        self.store = CentreStore(
            num_ids,
            embedding_size,
            dist,
            store,
            rows_per_id=margin.subcentres,
            dense_decay=dense_decay,
            seed=seed,
        )
        chunk = chunk or default_chunk(embedding_size * margin.subcentres, dist.device)
        self._chunks = ClassChunks(self.store, chunk)
        self.step = 0
        self.skipped_steps = 0
        self._softmax = softmax_for(self.margin, self.store.scratch, self.products)
        self._fused = fused_softmax(self.margin, self.store, self.products)
        self._pending: list[SampledBatch] = []
        self._latest: SampledBatch | None = None

    keeps_every_id = True

    # ---- what the subclasses decide -----------------------------------------------------------------------

    def select(self, local_G: Tensor) -> Tensor | None:
        """Classes of this process to compare with in this step, ascending, on the CPU; None is all.

        Args:
            local_G: the batch's target classes, counted from the first one of this process; -1 for others.
                In host memory.
        """
        return None

    def num_selected(self, batch: int) -> int | None:
        """Most classes of this process that a step with ``batch`` images is compared with; None is all."""
        return None

    def num_compared(self, batch_size: int) -> int:
        """See ``ClassHead.num_compared``."""
        return self.num_selected(batch_size) or self.store.stop_id - self.store.first_id

    def expected_classes(self, step: int) -> Tensor | None:
        """Classes of this process that a step will probably read, ascending; None is not known."""
        return None

    def _expected(self, step: int) -> Tensor | None:
        return self.expected_classes(step) if self.store.staged else None

    def _prefetch(self) -> None:
        """Start to read rows that the next step will need."""
        expected = self._expected(self.step + 1)
        if expected is not None:
            self.store.prefetch(self.store.rows_of(expected))

    # ---- a step -------------------------------------------------------------------------------------------

    def forward(self, q_VBD: Tensor, id_B: Tensor, k_VBD: Tensor | None = None) -> HeadOutput:
        """Mean loss over the global batch; see ``ClassHead.forward``."""
        with without_autocast(q_VBD.device):
            return self._forward(self.dist.gather_with_grad(as_float(q_VBD[0])), self.dist.gather_ids(id_B))

    def _forward(self, x_GD: Tensor, id_G: Tensor) -> HeadOutput:
        check_ids(id_G, self.num_ids, self.compat)
        margin, store = self.margin, self.store
        shared_GD = self.dist.shared(x_GD)
        unit_GD, norm_G = unit_and_norm(shared_GD, self._fused is not None)
        e_GD = unit_GD if shared_GD is x_GD else unit(x_GD)
        local_G = id_G - store.first_id
        mine_G = (local_G >= 0) & (local_G < store.stop_id - store.first_id)
        local_G = torch.where(mine_G, local_G, -1)
        classes, block = self._chunks.open(self.select(local_G), self._expected(self.step))
        target_cos_G = target_cosines(store, e_GD, local_G)
        self._prefetch()
        (id_G,) = to_device(x_GD.device, id_G)
        has_G = id_G >= 0
        target = margin.prepare(target_cos_G, norm_G, has_G if self.compat else None)
        unknown_G = torch.zeros(len(id_G), device=id_G.device)
        if self._latest:
            self._latest.saved.forget()
        saved = SavedBatch(
            e_GD.detach().float(),
            e_GD.detach().to(self.products),
            TargetLogits(target.cos_B.detach(), {name: x.detach() for name, x in target.extra.items()}),
            local_G if classes is None else places_in(classes, local_G),
            *(unknown_G, unknown_G, unknown_G),
            *self._room(classes, len(id_G), e_GD.requires_grad),
        )
        sampled = self._latest = SampledBatch(saved, classes, block)
        fused = self._fused if self._fuses(len(id_G)) else None
        value_G = negatives_value(e_GD, self._softmax, self._chunks, sampled, self._pending, self.dist, fused)
        if target_cos_G.requires_grad:
            target_cos_G.register_hook(lambda grad_G: setattr(saved, "grad_target_B", grad_G.float()))
        loss_of = partial(released_losses, has_G=has_G) if self.compat else sample_losses
        loss = loss_of(margin, self.target_logits(target, id_G), value_G).mean()
        loss = with_batch_terms(loss, margin, shared_GD, norm_G, id_G)
        stats = {"target_cosine": target_cos_G.detach().mean(), "norm": norm_G.detach().mean()}
        return HeadOutput(loss.float(), stats)

    def is_finite(self) -> Tensor | None:
        """See ``ClassHead.is_finite``: all that the gradients of the rows are made of."""
        if not self._pending:
            return None
        batches = [sampled.saved for sampled in self._pending]
        parts = [x for b in batches for x in (b.e_BD, b.value_B, b.grad_value_B, b.grad_target_B)]
        return torch.stack(torch._foreach_norm(parts, torch.inf)).isfinite().all()

    def finish_step(self, lr: float) -> None:
        """Move the rows at rate ``lr`` by what backward left."""
        if self._pending:
            self.store.begin_update(self.step)
            self._move(lr)
            self.store.end_step(lr)
        self._pending.clear()
        self.step += 1

    def skip_step(self) -> None:
        """Drop what backward left; no row has changed."""
        self._pending.clear()
        self.skipped_steps += 1
        self.step += 1

    def _move(self, lr: float) -> None:
        classes, block, batches = moving(
            self._pending, self._latest, lambda chosen: self._chunks.open(chosen, self._expected(self.step))
        )
        batch = sum(len(saved.e_BD) for saved in batches)
        if self._fused is not None and self._fuses(batch) and all(one.member_C is None for one in batches):
            self._fused.move(batches, classes, self.loss_scale, lr)
        else:
            move_rows(self.store, self._softmax, self._chunks, (classes, block), batches, self.loss_scale, lr)

    def _fuses(self, batch: int) -> bool:
        """Whether a kernel evaluates all rows at once for a batch of that size."""
        return self._fused is not None and self._fused.takes(batch)

    def _room(self, classes: Tensor | None, batch: int, learns: bool) -> tuple[Tensor | None, Tensor | None]:
        """Room for the norms of all rows read, and for what is kept of them for their gradient."""
        if self._fuses(batch):
            return None, None
        store, take = self.store, self.store.scratch.take
        num_rows = kept = store.num_rows if classes is None else len(classes) * store.rows_per_id
        if classes is None:
            cell = batch * self.products.itemsize
            kept = rows_kept(num_rows, self._chunks.size * store.rows_per_id, cell, self._logits_bytes)
        room = take("kept", (kept, batch), self.products) if kept and learns else None
        return take("all_norms", (num_rows, 1)), room

    def bytes_needed(self, batch_size: int) -> Bytes:
        """See ``ClassHead.bytes_needed``."""
        return centre_bytes(
            self.store,
            self.margin,
            self.products,
            self._chunks.size,
            batch_size * self.dist.world_size,
            self.num_selected(batch_size * self.dist.world_size),
            self._logits_bytes,
            self._fused,
        )

    def has_finite_rows(self) -> bool:
        """See ``ClassHead.has_finite_rows``."""
        return self.store.memory is None or self.store.memory.has_finite_lengths()

    # ---- state --------------------------------------------------------------------------------------------

    def row_bytes(self) -> int:
        """See ``ClassHead.row_bytes``."""
        store = self.store
        row = sum(field.bytes for field in store.fields)
        return 0 if store.placement == "disk" else store.num_rows * row

    def rows_to_save(self, folder: Path, copy: bool) -> Writing:
        """See ``ClassHead.rows_to_save``: centres and their optimizer's state."""
        return centres_saved.prepare(self.store, folder, copy)

    def load_rows(self, folder: Path) -> None:
        """Read what ``save_rows`` wrote, on any number of processes and with any placement.

        Raises:
            ValueError: the checkpoint is of another embedding size, number of identities or sub-centres.
        """
        centres_saved.load(self.store, folder)

    def inherit_rows(self, folder: Path, old_ids: Tensor) -> None:
        """See ``ClassHead.inherit_rows``: identities are appended, removed and renumbered.

        Raises:
            ValueError: the checkpoint is of another embedding size or number of sub-centres.
        """
        centres_saved.load(self.store, folder, old_ids)

    def read_rows(self, id_N: Tensor) -> Tensor:
        """Centres (N * sub-centres, D) of any identities, float32; all processes call and get the same."""
        return by_identity.read(self.store, id_N)

    def write_rows(self, id_N: Tensor, rows_ND: Tensor) -> None:
        """Set centres (N * sub-centres, D) of distinct identities and clear their optimizer state."""
        by_identity.write(self.store, id_N, rows_ND)

    def get_extra_state(self) -> dict[str, int]:
        """Counters, for ``state_dict``; rows are saved by ``save_rows``."""
        return {"step": self.step, "skipped_steps": self.skipped_steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take over what ``get_extra_state`` gave."""
        self.step, self.skipped_steps = state["step"], state["skipped_steps"]
