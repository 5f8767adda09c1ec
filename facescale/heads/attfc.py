"""AttFC: class centres made by attention over a few images of an identity; a container of recent ones."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from facescale.distributed import Dist
from facescale.heads.base import Bytes, HeadOutput, Needs
from facescale.heads.slot_head import SlotHead, concatenated, last_of, on
from facescale.heads.softmax import sample_losses, with_batch_terms
from facescale.margins import Margin, TargetLogits
from facescale.ops import as_float, to_device, unit, without_autocast
from facescale.pools import EMPTY, IntArray

# V views, B batch of this process, G batch of all processes, S slots of this process, D embedding size


def generative_centres(
    q_BD: Tensor, k_VBD: Tensor, temperature: float = 1.0, normalise_keys: bool = True
) -> tuple[Tensor, Tensor]:
    """Unit class centres (B, D) from key embeddings, and the attention (B, V) that weighed them.

    attention = softmax over the keys of cos(query, key) / temperature; centre = unit(sum attention * key)
    (AttFC, arXiv 2503.06839, as its release computes it). No gradient.

    Args:
        q_BD: embedding of the query.
        k_VBD: embeddings of the keys.
        temperature: small values follow the nearest key, large ones give the mean.
        normalise_keys: sum unit keys; otherwise a key's norm weighs, too, as in the release.
    """
    with torch.no_grad():
        q_BD, k_VBD = unit(q_BD), as_float(k_VBD)
        unit_VBD = unit(k_VBD)
        attention_VB = (torch.linalg.vecdot(q_BD, unit_VBD) / temperature).softmax(0)
        keys_VBD = unit_VBD if normalise_keys else k_VBD
        return unit((attention_VB[:, :, None] * keys_VBD).sum(0)), attention_VB.T


class AttFCHead(SlotHead):
    """Margin loss of a query against its generated centre and a container of recently generated ones.

    Target class: the centre that attention makes of the identity's keys (see ``generative_centres``). Other
    classes: the centres of the last steps, which the container keeps; those of the query's identity are
    left out. After the optimizer's step the batch's centres go into the container.

    With ``fresh`` the other centres of the batch count as well, and in a ``unique`` container they stand
    for their identities' older ones. ``refresh`` below 1 (unique only) makes the centre a moving average of
    past images: unit((1 - refresh) old + refresh new) is the target class and what the container keeps.

    ``compat``, as released: empty slots hold random directions and count; slots of the query's identity
    count with cosine -1, without gradient. (The release also has ``normalise_keys`` off, and the
    ``compat`` of the margin.)

    Source: https://arxiv.org/abs/2503.06839

    Example:
        >>> head = facescale.heads.build("attfc", 1000, 16, "cosface", keys=2, share=0.3)
        >>> q_VBD = torch.randn(1, 8, 16, requires_grad=True)
        >>> k_VBD = torch.randn(2, 8, 16)  # two more images of each identity, embedded by the twin
        >>> head(q_VBD, torch.arange(8), k_VBD).loss.backward()
        >>> head.after_step(lr=0.1)  # the 8 centres go into the container
        >>> head.size, len(head.pool)
        (300, 8)

    Args:
        num_ids: number of identities.
        embedding_size: D.
        margin: what happens to the cosines.
        dist: this process among its peers.
        keys: images of the identity that make a centre, beside the query.
        size: slots of the container; 0 takes ``share`` of the identities.
        share: share of the identities that have a slot, where ``size`` is 0.
        unique: one slot per identity, the least recently used one gives way; else a ring.
        fresh: the batch's centres count, too.
        refresh: weight of the new centre against the one in the container.
        temperature: temperature of the attention.
        normalise_keys: the attention sums unit keys.
        products: precision of the matrix products: "auto", "float32" or "bfloat16".
        chunk: slots compared with at a time; 0 is a good size for the device.
        compat: as released: slots not yet taken hold random directions and count.
        seed: seed of the random directions.

    Raises:
        ValueError: an option out of range, or options that do not go together.
    """

    slot_id: Tensor

    def __init__(
        self,
        num_ids: int,
        embedding_size: int,
        margin: Margin,
        dist: Dist,
        *,
        keys: int = 2,
        size: int = 0,
        share: float = 0.3,
        unique: bool = False,
        fresh: bool = False,
        refresh: float = 1.0,
        temperature: float = 1.0,
        normalise_keys: bool = True,
        products: str = "auto",
        chunk: int = 0,
        compat: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__(
            num_ids,
            embedding_size,
            margin,
            dist,
            size=size,
            share=share,
            planes=1,
            unique=unique,
            random=compat,
            products=products,
            chunk=chunk,
            seed=seed,
        )
        if keys < 1:
            raise ValueError(f"attfc makes a centre of at least 1 key, got keys={keys} (2 in the release)")
        if temperature <= 0:
            raise ValueError(
                f"attention temperature is {temperature}; it must be positive (1 in the release)"
            )
        if not 0 < refresh <= 1 or (refresh < 1 and not unique):
            raise ValueError(
                f"refresh is {refresh}; it lies above 0 up to 1, and below 1 only with unique = true"
            )
        self.needs = Needs(key_views=keys, released_order=compat)
        self.unique, self.fresh, self.refresh = unique, fresh, refresh
        self.temperature, self.normalise_keys, self.compat = temperature, normalise_keys, compat
        slot_id = torch.full((self.stop - self.first,), EMPTY, device=self.rows.device)
        self.register_buffer("slot_id", slot_id, persistent=False)
        self._pending: list[tuple[Tensor, IntArray]] = []

    def forward(self, q_VBD: Tensor, id_B: Tensor, k_VBD: Tensor | None = None) -> HeadOutput:
        """Mean loss over the global batch; see ``ClassHead.forward``.

        Raises:
            ValueError: no keys, or not as many as asked for.
        """
        if k_VBD is None or len(k_VBD) != self.needs.key_views:
            given = 0 if k_VBD is None else len(k_VBD)
            raise ValueError(f"attfc got {given} key views; give {self.needs.key_views}, made by the twin")
        with without_autocast(q_VBD.device):
            return self._forward(as_float(q_VBD[0]), id_B, k_VBD)

    def _forward(self, q_BD: Tensor, id_B: Tensor, k_VBD: Tensor) -> HeadOutput:
        dist, margin = self.dist, self.margin
        centre_BD, attention_BV = generative_centres(q_BD, k_VBD, self.temperature, self.normalise_keys)
        x_GD, known_G = dist.gather_with_grad(q_BD), dist.gather_ids(id_B)
        (id_G,) = to_device(q_BD.device, known_G)
        centre_GD = self._refreshed(dist.all_gather(centre_BD.to(q_BD.dtype)), known_G.numpy())
        e_GD, shared_GD = unit(x_GD), dist.shared(x_GD)
        norm_G = shared_GD.norm(dim=1)
        target = margin.prepare(torch.linalg.vecdot(unit(shared_GD), centre_GD), norm_G)
        here = slice(dist.rank * len(id_B), (dist.rank + 1) * len(id_B))
        stale_S = torch.isin(self.slot_id, id_G) if self.unique and self.fresh else None

        def of_container() -> Iterator[tuple[Tensor, Tensor | None]]:
            for start in range(0, self.num_counting, self.chunk):
                part = slice(start, min(start + self.chunk, self.num_counting))
                hidden_CG = self.slot_id[part, None] == id_G
                if stale_S is not None:
                    hidden_CG |= stale_S[part, None]
                yield self.rows[0, part], hidden_CG

        def of_batch() -> Iterator[tuple[Tensor, Tensor | None]]:
            yield centre_GD[here], id_G[here, None] == id_G

        parts = [of_container, of_batch] if self.fresh else [of_container]
        value_G = self.negatives(e_GD, target, concatenated(parts))
        if self.compat:
            value_G = self._with_hidden(value_G, target, id_G)
        loss = sample_losses(margin, self.target_logits(target, id_G), value_G).mean()
        loss = with_batch_terms(loss, margin, shared_GD, norm_G, id_G)
        if self.training:
            self._pending.append((centre_GD, known_G.numpy()))
        stats = {
            "target_cosine": target.cos_B.detach().mean(),
            "norm": norm_G.detach().mean(),
            "attention": attention_BV.amax(1).mean(),
        }
        return HeadOutput(loss.float(), stats)

    def _refreshed(self, centre_GD: Tensor, id_G: IntArray) -> Tensor:
        """The new centres, moved from the ones that the container has of these identities."""
        if self.refresh == 1:
            return centre_GD
        old_GD = self.read(0, self.pool.view(id_G)).to(centre_GD.dtype)
        known_G1 = old_GD.any(1, keepdim=True)
        return torch.where(known_G1, unit(old_GD.lerp(centre_GD, self.refresh)), centre_GD)

    def _with_hidden(self, value_G: Tensor, target: TargetLogits, id_G: Tensor) -> Tensor:
        """Add slots of the query's identity to the negatives' value, at cosine -1."""
        count_G = self.dist.all_reduce((self.slot_id[:, None] == id_G).sum(0))
        least_G = self.margin.negatives(value_G.new_full((len(id_G), 1), -1.0), target)[:, 0]
        if self.margin.reduction == "sum":
            return value_G + count_G * least_G
        return torch.logaddexp(value_G, count_G.log() + least_G)

    def finish_step(self, lr: float) -> None:
        """Put the centres of the step into the container."""
        for centre_GD, id_G in self._pending:
            slots = self.pool.get(id_G)
            kept = last_of(slots)
            kept = kept[self.mine(slots[kept])]
            place_M, from_M, id_M = on(self.rows, slots[kept] - self.first, kept, id_G[kept])
            self.rows[0, place_M] = centre_GD[from_M].to(self.rows.dtype)
            self.slot_id[place_M] = id_M
        self._pending.clear()

    def skip_step(self) -> None:
        """Forget the centres of the step."""
        self._pending.clear()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take over what ``get_extra_state`` gave."""
        super().set_extra_state(state)
        (slot_id,) = on(self.slot_id, self.pool.slot_ids[self.first : self.stop])
        self.slot_id.copy_(slot_id)

    def bytes_needed(self, batch_size: int) -> Bytes:
        """Rows and their identities on the device; the pool's bookkeeping on the host."""
        planned = self.slot_bytes(batch_size, embeddings=4.3, share=1.0, copied=False)
        return replace(planned, device=planned.device + self.slot_id.numel() * 8)
