"""Base of the heads with a centre for every identity: exact, without logits or a gradient matrix."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from facescale.centres import by_identity
from facescale.centres import sharded_checkpoint as centres_saved
from facescale.centres.layout import count
from facescale.centres.options import StoreOptions
from facescale.centres.row_block import RowBlock
from facescale.centres.store import CentreStore
from facescale.distributed import Dist
from facescale.files import Writing
from facescale.heads.base import Bytes, ClassHead, HeadOutput
from facescale.heads.centre_softmax import negatives_value, target_cosines
from facescale.heads.chunked_softmax import ChunkedSoftmax
from facescale.heads.class_chunks import ClassChunks, places_in
from facescale.heads.memory import centre_bytes
from facescale.heads.saved_batch import SampledBatch, SavedBatch, on_classes
from facescale.heads.softmax import released_losses, sample_losses, with_batch_terms
from facescale.margins import Margin, TargetLogits
from facescale.ops import as_float, default_chunk, product_dtype, to_device, unit, without_autocast

# V views, B batch of this process, G batch of all processes, C classes, D embedding size


class CentreHead(ClassHead):
    """Margin loss against class centres that live in a ``CentreStore``, evaluated in chunks of classes.

    ``forward`` passes over the chunks once and computes the loss and its gradient by the embeddings.
    ``backward`` keeps the batch (unit embeddings and a few numbers per sample). ``after_step`` passes over
    the chunks again: it recomputes the logits of a chunk, derives the gradient of its rows and updates these
    rows at once. So neither B x C logits nor a C x D gradient ever exist, and the gradients are still exact:

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
    ) -> None:
        super().__init__(num_ids, embedding_size, margin, dist)
        if chunk < 0:
            raise ValueError(f"chunk is {chunk} classes; it must be positive, or 0 for a good size")
        self.compat = compat
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
        self._softmax = ChunkedSoftmax(self.margin, self.store.scratch, self.products)
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
        self._check_ids(id_G)
        margin, store = self.margin, self.store
        e_GD, shared_GD = unit(x_GD), self.dist.shared(x_GD)
        norm_G = shared_GD.norm(dim=1)
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
        saved = SavedBatch(
            e_GD.detach().float(),
            e_GD.detach().to(self.products),
            TargetLogits(target.cos_B.detach(), {name: x.detach() for name, x in target.extra.items()}),
            local_G if classes is None else places_in(classes, local_G),
            *(unknown_G, unknown_G, unknown_G),
            *self._room(classes, len(id_G)),
        )
        sampled = self._latest = SampledBatch(saved, classes, block)
        value_G = negatives_value(e_GD, self._softmax, self._chunks, sampled, self._pending, self.dist)
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
        store = self.store
        classes, block, batches = self._moving()
        decay, scale = store.rule.coupled_decay, self.loss_scale
        # Rows that move in place need not be copied, nor read if the products with them were kept.
        unread = store.in_place and all(saved.product_NB is not None for saved in batches)
        for first, rows, part in self._chunks.read(classes, block, only_rows=store.in_place, unread=unread):
            if store.fused:
                w_RD = None if unread else part.rows_RD
                store.move(
                    rows,
                    part,
                    *self._softmax.gradient_parts(w_RD, count(rows), first, batches, decay, scale),
                    lr,
                )
                continue
            into = store.rule.gradient_into(part.fields)
            grad_RD = self._softmax.row_gradient(part.rows_RD, first, batches, decay, scale, *into)
            store.update(rows, part, grad_RD, lr)
        if classes is not None and block is not None:
            store.write_back(store.rows_of(classes), block)

    def _moving(self) -> tuple[Tensor | None, RowBlock | None, list[SavedBatch]]:
        """Classes that move in this step, their rows, and the batches with columns among these classes."""
        chosen = [sampled.classes for sampled in self._pending if sampled.classes is not None]
        if not chosen:
            return None, None, [sampled.saved for sampled in self._pending]
        sampled = self._pending[0]
        if len(self._pending) == 1 and sampled is self._latest:
            return sampled.classes, sampled.block, [sampled.saved]
        classes, block = self._chunks.open(torch.cat(chosen).unique(), self._expected(self.step))
        assert classes is not None
        return classes, block, [on_classes(sampled, classes) for sampled in self._pending]

    def _room(self, classes: Tensor | None, batch: int) -> tuple[Tensor | None, ...]:
        """Room for the norms of all rows read; for products and exponentials of sampled ones."""
        take = self.store.scratch.take
        if classes is None:
            return take("all_norms", (self.store.num_rows, 1)), None, None
        num_rows = len(classes) * self.store.rows_per_id
        product_NB = take("products", (num_rows, batch), self.products)
        exp_NB = take("exps", (len(classes), batch), self.products) if self._softmax.keeps_exp else None
        return take("all_norms", (num_rows, 1)), product_NB, exp_NB

    def _check_ids(self, id_G: Tensor) -> None:
        low, high = int(id_G.min()), int(id_G.max())
        if high >= self.num_ids or (low < 0 and not self.compat):
            raise ValueError(
                f"identities of the batch go from {low} to {high}; the head was made for 0 to "
                f"{self.num_ids - 1}: number them so, or make the head with more identities"
            )

    def bytes_needed(self, batch_size: int) -> Bytes:
        """See ``ClassHead.bytes_needed``."""
        return centre_bytes(
            self.store,
            self.margin,
            self.products,
            self._chunks.size,
            batch_size * self.dist.world_size,
            self.num_selected(batch_size * self.dist.world_size),
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
