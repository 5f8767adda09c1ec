"""Base of the heads that keep a centre for every identity: exact, without logits or a gradient matrix."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from facescale.centres import sharded_checkpoint as centres_saved
from facescale.centres.layout import Rows, count
from facescale.centres.options import StoreOptions
from facescale.centres.store import CentreStore, Work
from facescale.distributed import Dist
from facescale.heads.base import Bytes, ClassHead, HeadOutput
from facescale.heads.chunked_softmax import NOTHING, Chunked, Seen
from facescale.heads.memory import centre_bytes
from facescale.margins import Margin, Own
from facescale.ops import as_float, default_chunk, product_dtype, unit

# V views, B batch of this process, G batch of all processes, C classes, D embedding size

_FLOOR = 1e-30  # least probability of the own class under compat


class CentreHead(ClassHead):
    """Margin loss against class centres that live in a ``CentreStore``, evaluated in chunks of classes.

    ``forward`` goes over the chunks once: loss, and its gradient by the embeddings. ``backward`` remembers
    the batch (unit embeddings and a few numbers per sample). ``after_step`` goes over the chunks again: it
    makes the logits of a chunk anew, the gradient of its rows from them, and moves these rows at once. So
    neither B x C logits nor a C x d gradient ever exist, and yet the gradients are the exact ones:

    - gradient accumulation: all batches since the last step are remembered, the sum of their gradients moves
      the rows once;
    - a scaled loss: set ``loss_scale``; it is divided out of the row gradients;
    - a step that must not happen: ``skip_step`` forgets the batches, no row has been touched. Batches that
      are not finite on any process are dropped likewise, by agreement of all processes (``skipped_steps``);
    - clipping: the norm of the row gradients is known to nobody in advance, so rows are not clipped (the
      released Partial FC clips the backbone only, too).

    Classes are sharded over processes. Each sees all embeddings and its own classes; own cosines, log-sum-exp
    and loss are the same on all processes.

    Args:
        num_ids: number of identities.
        embedding_size: D.
        margin: what happens to the cosines.
        dist: this process among its peers.
        products: precision of matrix products: "float32", "bfloat16" (factors and results, as under autocast;
            own cosines, exponentials and sums over classes stay float32), or "auto" for bfloat16 where it is
            fast.
        chunk: classes evaluated at a time; 0 is a good size for the device.
        compat: as released by Partial FC: -log p is cut at 69.08 in value (not in gradient), and identities
            that are -1 count as samples without an own class, with that loss.
        store: options of the ``CentreStore``.
        seed: of everything random here.
        dense_decay: see ``CentreStore``.
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
        self.chunk = chunk or default_chunk(embedding_size * margin.subcentres, dist.device)
        self.step = 0
        self.skipped_steps = 0
        self._chunked = Chunked(self.margin, self.store.scratch, self.products)
        self._pending: list[_Looked] = []
        self._latest: _Looked | None = None

    keeps_every_id = True

    # ---- what the subclasses decide -----------------------------------------------------------------------

    def select(self, local_G: Tensor) -> Tensor | None:
        """Classes of this process to look at in this step, ascending, on the CPU; None is all.

        Args:
            local_G: the batch's own classes, counted from the first one of this process; -1 for others.
        """
        return None

    def num_selected(self, batch: int) -> int | None:
        """Most classes of this process that a step with ``batch`` images looks at; None is all."""
        return None

    def num_compared(self, batch_size: int) -> int:
        """See ``ClassHead.num_compared``."""
        return self.num_selected(batch_size) or self.store.stop_id - self.store.first_id

    def expected_classes(self, step: int) -> Tensor | None:
        """Classes of this process that a step will probably look at, ascending; None is not known."""
        return None

    def _prefetch(self) -> None:
        """Start to read rows that the next step will look at."""
        expected = self.expected_classes(self.step + 1) if self.store.staged else None
        if expected is not None:
            self.store.prefetch(self.store.rows_of(expected))

    # ---- a step -------------------------------------------------------------------------------------------

    def forward(self, q_VBD: Tensor, id_B: Tensor, k_VBD: Tensor | None = None) -> HeadOutput:
        """Mean loss over the global batch; see ``ClassHead.forward``."""
        with torch.autocast(q_VBD.device.type, enabled=False):
            return self._forward(self.dist.gather_with_grad(as_float(q_VBD[0])), self.dist.all_gather(id_B))

    def _forward(self, x_GD: Tensor, id_G: Tensor) -> HeadOutput:
        self._check_ids(id_G)
        margin, store = self.margin, self.store
        e_GD, shared_GD = unit(x_GD), self.dist.shared(x_GD)
        norm_G = shared_GD.norm(dim=1)
        local_G = id_G - store.first_id
        mine_G = (local_G >= 0) & (local_G < store.stop_id - store.first_id)
        local_G = torch.where(mine_G, local_G, -1)
        classes, work = self._open(self.select(local_G))
        own_cos_G = self._own_cosines(e_GD, local_G)
        self._prefetch()
        has_G = id_G >= 0
        own = margin.prepare(own_cos_G, norm_G, has_G if self.compat else None)
        unknown_G = torch.zeros(len(id_G), device=id_G.device)
        seen = Seen(
            e_GD.detach().float(),
            e_GD.detach().to(self.products),
            Own(own.cos_B.detach(), {name: x.detach() for name, x in own.extra.items()}),
            local_G if classes is None else _places(local_G, classes),
            *(unknown_G, unknown_G, unknown_G),
            *self._room(classes, len(id_G)),
        )
        looked = self._latest = _Looked(seen, classes, work)
        parameters = tuple(p for p in margin.parameters() if p.requires_grad)
        value_G = cast(Tensor, _Others.apply(e_GD, self, looked, *parameters))  # type: ignore[no-untyped-call]
        if own_cos_G.requires_grad:
            own_cos_G.register_hook(lambda grad_G: setattr(seen, "grad_own_B", grad_G.float()))
        loss = self._losses(margin.own(own), value_G, has_G).mean()
        for term in (margin.penalty(norm_G), margin.batch_term(shared_GD, id_G)):
            loss = loss if term is None else loss + term
        stats = {"own_cosine": own_cos_G.detach().mean(), "norm": norm_G.detach().mean()}
        return HeadOutput(loss.float(), stats)

    def _losses(self, own_G: Tensor, value_G: Tensor, has_G: Tensor) -> Tensor:
        if self.margin.reduction == "sum":
            return torch.where(has_G, own_G, 0.0) + value_G if self.compat else own_G + value_G
        loss_G = F.softplus(value_G - own_G, threshold=80)  # -log(exp(own) / (exp(own) + sum of the others))
        if not self.compat:
            return loss_G
        floor = -torch.log(torch.tensor(_FLOOR, device=own_G.device))
        loss_G = torch.where(has_G, loss_G, value_G)
        cut_G = torch.where(has_G, loss_G.clamp(max=floor), floor)
        return loss_G + (cut_G - loss_G).detach()

    def _own_cosines(self, e_GD: Tensor, local_G: Tensor) -> Tensor:
        """Cosines to the own class (its best sub-centre), the same everywhere; 0 where nobody has it."""
        store = self.store
        ids, place_G = local_G.clamp_min(0).cpu().unique(return_inverse=True)
        rows_ND = store.open(store.rows_of(ids), only_rows=True, name="own").rows_RD
        unit_NKD = unit(rows_ND).view(len(ids), store.rows_per_id, -1).to(e_GD.dtype)
        cos_GK = torch.linalg.vecdot(e_GD[:, None], unit_NKD[place_G.to(e_GD.device)])
        return self.dist.sum_with_grad(torch.where(local_G >= 0, cos_GK.amax(1), 0.0))

    def after_step(self, lr: float) -> None:
        """Move the rows at rate ``lr`` by what backward left, unless that is not finite on some process."""
        finite = [
            torch.isfinite(x).all()
            for looked in self._pending
            for x in (looked.seen.e_BD, looked.seen.value_B, looked.seen.grad_value_B, looked.seen.grad_own_B)
        ]
        if self.dist.any(bool(finite) and not torch.stack(finite).all()):
            self.skip_step()
            return
        if self._pending:
            self.store.begin_update(self.step)
            self._move(lr)
            self.store.end_step(lr)
        self._pending = []
        self.step += 1

    def skip_step(self) -> None:
        """Forget what backward left; no row has been touched."""
        self._pending = []
        self.skipped_steps += 1
        self.step += 1

    def _move(self, lr: float) -> None:
        store = self.store
        classes, work, batches = self._moving()
        decay, scale = store.rule.coupled_decay, self.loss_scale
        # Rows that move where they are need not be copied, nor looked at if the products with them were kept.
        unseen = store.in_place and all(seen.product_NB is not None for seen in batches)
        for first, rows, part in self.chunks(classes, work, only_rows=store.in_place, unseen=unseen):
            if store.fused:
                w_RD = None if unseen else part.rows_RD
                store.move(
                    rows,
                    part,
                    *self._chunked.gradient_parts(w_RD, count(rows), first, batches, decay, scale),
                    lr,
                )
                continue
            into = store.rule.gradient_into(part.planes)
            grad_RD = self._chunked.row_gradient(part.rows_RD, first, batches, decay, scale, *into)
            store.update(rows, part, grad_RD, lr)
        if classes is not None and work is not None:
            store.put(store.rows_of(classes), work)

    def _moving(self) -> tuple[Tensor | None, Work | None, list[Seen]]:
        """Classes that move in this step, their rows, and the batches as they look from there."""
        chosen = [looked.classes for looked in self._pending if looked.classes is not None]
        if not chosen:
            return None, None, [looked.seen for looked in self._pending]
        looked = self._pending[0]
        if len(self._pending) == 1 and looked is self._latest:
            return looked.classes, looked.work, [looked.seen]
        classes, work = self._open(torch.cat(chosen).unique())
        assert classes is not None
        batches = []
        for looked, old in zip(self._pending, chosen, strict=True):
            column_B = looked.seen.column_B
            own_B = torch.where(column_B >= 0, old.to(column_B.device)[column_B], -1)
            member_C = torch.isin(classes, old).to(column_B.device)
            column_B = _places(own_B, classes)
            batches.append(
                replace(
                    looked.seen,
                    column_B=column_B,
                    inverse_N1=None,
                    product_NB=None,
                    exp_NB=None,
                    member_C=member_C,
                )
            )
        return classes, work, batches

    def _room(self, classes: Tensor | None, batch: int) -> tuple[Tensor | None, ...]:
        """Room for the norms of all rows looked at; for products and exponentials of sampled ones."""
        take = self.store.scratch.take
        if classes is None:
            return take("all_norms", (self.store.num_rows, 1)), None, None
        num_rows = len(classes) * self.store.rows_per_id
        product_NB = take("products", (num_rows, batch), self.products)
        exp_NB = take("exps", (len(classes), batch), self.products) if self._chunked.keeps_exp else None
        return take("all_norms", (num_rows, 1)), product_NB, exp_NB

    def _open(self, classes: Tensor | None) -> tuple[Tensor | None, Work | None]:
        """Open the rows of ascending classes for the whole step; the classes come in the order of rows."""
        if classes is None:
            return None, None
        expected = self.expected_classes(self.step) if self.store.staged else None
        expected_rows = None if expected is None else self.store.rows_of(expected)
        order, work = self.store.gather(self.store.rows_of(classes), expected_rows)
        per_id = self.store.rows_per_id
        return order if per_id == 1 else order[::per_id] // per_id, work

    def chunks(
        self, classes: Tensor | None, work: Work | None, only_rows: bool, unseen: bool = False
    ) -> Iterator[tuple[int, Rows, Work]]:
        """(position of the first class, rows, their work or an empty one) of one chunk after the other."""
        store, per_id = self.store, self.store.rows_per_id
        pieces = list(self._pieces(classes))
        for (first, here), following in zip(pieces, [*pieces[1:], None], strict=True):
            start = first * per_id
            if work:
                part = work.part(start, start + count(here))
            else:
                part = Work({}) if unseen else store.open(here, only_rows)
            if classes is None and following:
                store.prefetch(following[1])
            yield first, here, part

    def _pieces(self, classes: Tensor | None) -> Iterator[tuple[int, Rows]]:
        """(position of the first class, rows) of one chunk after the other."""
        store, size = self.store, self.chunk * self.store.rows_per_id
        rows = None if classes is None else store.rows_of(classes)
        total = store.num_rows if rows is None else len(rows)
        for start in range(0, total, size):
            here = slice(start, min(start + size, total))
            yield start // store.rows_per_id, here if rows is None else rows[here]

    def _check_ids(self, id_G: Tensor) -> None:
        if id_G.device.type != "cpu":  # reading them would stall the device; a wrong one fails in indexing
            return
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
            self.chunk,
            batch_size * self.dist.world_size,
            self.num_selected(batch_size * self.dist.world_size),
        )

    # ---- state --------------------------------------------------------------------------------------------

    def save_rows(self, folder: Path) -> None:
        """Write centres and their optimizer's state below ``folder``; all processes call."""
        centres_saved.save(self.store, folder)

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
        rows_ND = torch.zeros(
            len(id_N) * self.store.rows_per_id, self.embedding_size, device=self.dist.device
        )
        mine_N, rows = self._mine(id_N)
        if len(rows):
            rows_ND[mine_N] = self.store.open(rows, name="io").rows_RD
        return self.dist.all_reduce(rows_ND)

    def write_rows(self, id_N: Tensor, rows_ND: Tensor) -> None:
        """Set centres (N * sub-centres, D) of distinct identities and forget their optimizer state."""
        mine_N, rows = self._mine(id_N)
        if len(rows):
            self.store.settle()
            self.store.put(rows, self.store.filled(rows, {"rows": rows_ND[mine_N]}))

    def _mine(self, id_N: Tensor) -> tuple[Tensor, Tensor]:
        """Which rows of given identities are here, and their local numbers (distinct identities)."""
        store = self.store
        mine_N = (id_N >= store.first_id) & (id_N < store.stop_id)
        rows = store.rows_of(id_N[mine_N].cpu() - store.first_id)
        return mine_N.repeat_interleave(store.rows_per_id), rows

    def get_extra_state(self) -> dict[str, int]:
        """Counters, for ``state_dict``; rows are saved by ``save_rows``."""
        return {"step": self.step, "skipped_steps": self.skipped_steps}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Take over what ``get_extra_state`` gave."""
        self.step, self.skipped_steps = state["step"], state["skipped_steps"]


@dataclass
class _Looked:
    """A batch that was looked at.

    Attributes:
        seen: see ``Seen``.
        classes: those it was compared with, in the order of ``work``; None is all.
        work: their rows where these are staged, as long as no other batch is looked at.
    """

    seen: Seen
    classes: Tensor | None
    work: Work | None


class _Others(torch.autograd.Function):
    """Log-sum-exp (or sum) over all other classes of all processes, as a function of the unit embeddings."""

    @staticmethod
    def forward(ctx: Any, e_GD: Tensor, head: CentreHead, looked: _Looked, *parameters: Tensor) -> Tensor:
        margin, seen, dist = head.margin, looked.seen, head.dist
        chunks = head.chunks(looked.classes, looked.work, only_rows=True)
        rows = ((first, part.rows_RD) for first, _, part in chunks)
        top_G, sum_G, pull_GD = head._chunked.look(seen, rows, with_pull=ctx.needs_input_grad[0])
        if margin.reduction == "softmax":
            higher_G = dist.all_reduce(top_G.clone(), "max")
            shrink_G = (top_G - higher_G).exp()
            sum_G = dist.all_reduce(sum_G * shrink_G)
            pull_GD *= (shrink_G / sum_G.clamp_min(torch.finfo(torch.float32).tiny))[:, None]
            value_G = higher_G + sum_G.log()
        else:
            value_G = dist.all_reduce(sum_G)
        if margin.tally is not None:
            dist.all_reduce(margin.tally)
        seen.value_B = value_G.clamp_min(NOTHING)
        ctx.head, ctx.looked, ctx.parameters, ctx.pull_GD = head, looked, parameters, pull_GD
        return value_G.to(e_GD.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        head, looked = ctx.head, ctx.looked
        looked.seen.grad_value_B = grads[0].float()
        if not any(other is looked for other in head._pending):
            head._pending.append(looked)
        of_parameters: list[Tensor] = []
        if ctx.parameters:
            chunks = head.chunks(looked.classes, looked.work, only_rows=True)
            rows = ((first, part.rows_RD) for first, _, part in chunks)
            of_parameters = head._chunked.parameter_gradients(looked.seen, rows, ctx.parameters)
            of_parameters = [head.dist.all_reduce(grad) for grad in of_parameters]
        return (grads[0][:, None] * ctx.pull_GD).to(grads[0].dtype), None, None, *of_parameters


def _places(class_G: Tensor, classes: Tensor) -> Tensor:
    """Positions of classes in a list (any order), -1 where they are not in it."""
    wanted, order = class_G.cpu(), None
    if (classes[1:] < classes[:-1]).any():  # rows that were staged come in another order
        classes, order = classes.sort()
    place = torch.searchsorted(classes, wanted).clamp(max=len(classes) - 1)
    found = place if order is None else order[place]
    return torch.where(classes[place] == wanted, found, -1).to(class_G.device)
