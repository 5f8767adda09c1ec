"""What a head is: embeddings + identities -> loss, with whatever stands for the class centres."""

import copy
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from facescale.distributed import Dist
from facescale.files import Writing
from facescale.heads.source_margins import SourceMargins
from facescale.margins import Margin, TargetLogits

# V views, B batch of this process, D embedding size


@dataclass(frozen=True)
class Needs:
    """What a head asks of the loader and the task.

    Attributes:
        query_views: images of an identity that go through the backbone, with gradient.
        key_views: images of the same identity that go through the twin, without gradient.
        identity_pairs: half of the batch comes from an identity loader (F2C).
        released_order: queries and keys are drawn as AttFC's release draws them.
    """

    query_views: int = 1
    key_views: int = 0
    identity_pairs: bool = False
    released_order: bool = False

    def batch_bytes(self, batch_size: int, embedding_size: int) -> int:
        """Memory of the float32 embeddings of a batch: views, unit rows, gradients, fused keys."""
        return 4 * batch_size * embedding_size * (3 * self.query_views + 5 * self.key_views)


@dataclass(frozen=True)
class HeadOutput:
    """Result of a head.

    Attributes:
        loss: scalar float32, the mean over the global batch.
        stats: scalars worth logging (detached tensors, so that nothing waits for the device).
    """

    loss: Tensor
    stats: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Bytes:
    """Planned memory of a head on one process, in bytes.

    Attributes:
        device: resident on the compute device (rows, optimizer rows, queues).
        host: resident in host memory (host placement).
        disk: in files (disk placement).
        transient: extra peak on the device within a step.
        kept: of it what a step keeps of all logits, not to compute them twice (``logits_mb`` of ``full``).
    """

    device: int = 0
    host: int = 0
    disk: int = 0
    transient: int = 0
    kept: int = 0


class ClassHead(nn.Module):
    """Base of all heads.

    Args:
        num_ids: number of identities.
        embedding_size: D.
        margin: what happens to the cosines; the head keeps a copy, so that the caller's stays as it is.
        dist: this process among its peers.

    Attributes:
        needs: what the loader and the task must give.
        keeps_every_id: whether every identity has a centre of its own, which another run can inherit.
        loss_scale: what the loop multiplies the loss by before backward (fp16), beside 1 / accumulation;
            heads that move rows themselves divide it out.

    Raises:
        ValueError: fewer than 2 identities.
    """

    needs = Needs()
    keeps_every_id: bool = False
    loss_scale: float = 1.0

    def __init__(self, num_ids: int, embedding_size: int, margin: Margin, dist: Dist) -> None:
        super().__init__()
        if num_ids < 2:
            raise ValueError(f"a head needs at least 2 identities, got {num_ids}")
        self.num_ids = num_ids
        self.embedding_size = embedding_size
        self.margin = copy.deepcopy(margin)
        self.margin.set_num_negatives(num_ids - 1)  # heads that compare with fewer say so again
        self.dist = dist
        self.source_margins: SourceMargins | None = None

    def target_logits(self, target: TargetLogits, id_B: Tensor) -> Tensor:
        """Target-class logit (or loss) of each sample, (B,), by the margin of its identity's source."""
        if self.source_margins is None:
            return self.margin.target(target)
        return self.source_margins.target(target, id_B)

    def begin_step(self, progress: float, strength: float, loss_scale: float) -> None:
        """Prepare for the forward passes of one optimizer step.

        Args:
            progress: share of the training done, from 0, below 1; read by heads that change over time.
            strength: share of the margin in force, 0 to 1.
            loss_scale: see the attribute.
        """
        self.margin.strength = strength
        if self.source_margins is not None:
            self.source_margins.set_strength(strength)
        self.loss_scale = loss_scale

    def forward(self, q_VBD: Tensor, id_B: Tensor, k_VBD: Tensor | None = None) -> HeadOutput:
        """Loss of one step.

        Args:
            q_VBD: raw (not normalised) embeddings with gradient, V = ``needs.query_views``.
            id_B: int64 identities, 0 <= id < num_ids. In host memory, as a loader has them, nothing waits
                for the device; those on the device are read first.
            k_VBD: twin embeddings, V = ``needs.key_views``, or None.
        """
        raise NotImplementedError

    def after_step(self, lr: float) -> None:
        """Follow the backbone's optimizer step at rate ``lr``, unless the step is not finite on some process.

        Waits for the device, to see whether it is; a caller that knows calls ``finish_step`` instead.
        """
        finite = self.is_finite()
        if finite is not None and self.dist.any(~finite):
            self.skip_step()
        else:
            self.finish_step(lr)

    def is_finite(self) -> Tensor | None:
        """Whether what the rows of this process will move by is finite: a bool on the device.

        None: no rows move.
        """
        return None

    def finish_step(self, lr: float) -> None:
        """Do what follows the backbone's optimizer step (row updates, enqueueing) at rate ``lr``.

        All processes have agreed that the step is finite.
        """

    def skip_step(self) -> None:
        """Forget what ``forward`` prepared: the step was not finite."""

    def has_finite_rows(self) -> bool:
        """Whether what ``rows_to_save`` saves is finite, as far as it is in memory and no buffer."""
        return True

    def rows_to_save(self, folder: Path, copy: bool) -> Writing:
        """What is too large for ``state_dict``, ready to be written into ``folder``; all processes call.

        Args:
            folder: the checkpoint.
            copy: copy what is in memory, so that training may go on before it is written.
        """
        return Writing(0, list)

    def row_bytes(self) -> int:
        """Bytes that ``rows_to_save`` copies: rows in memory; those on disk are copied on disk."""
        return 0

    def save_rows(self, folder: Path) -> None:
        """Write what is too large for ``state_dict`` into ``folder``; all processes call."""
        self.rows_to_save(folder, copy=False).write()
        self.dist.barrier()

    def load_rows(self, folder: Path) -> None:
        """Read what ``save_rows`` wrote, on any number of processes."""

    def inherit_rows(self, folder: Path, old_ids: Tensor) -> None:
        """Take over the centres of another run's checkpoint; only where ``keeps_every_id``.

        Args:
            folder: where ``save_rows`` wrote them.
            old_ids: int64 (num_ids,), number of every identity in the other run; -1 starts with a new centre.
        """
        raise NotImplementedError

    def num_compared(self, batch_size: int) -> int:
        """Classes of this process that a step compares a batch of all processes with."""
        raise NotImplementedError

    def fill(self) -> None:
        """Give random content to slots that are still empty, to measure a step; centres always exist."""

    def bytes_needed(self, batch_size: int) -> Bytes:
        """Planned memory for a batch of ``batch_size`` images per process."""
        raise NotImplementedError


def check_ids(id_G: Tensor, num_ids: int, nobody: bool) -> None:
    """Check the identities of a batch, in host memory.

    Args:
        id_G: int64.
        num_ids: those that the head was made for.
        nobody: whether negative ones stand for samples without identity.

    Raises:
        ValueError: an identity that the head does not know.
    """
    low, high = int(id_G.min()), int(id_G.max())
    if high >= num_ids or (low < 0 and not nobody):
        raise ValueError(
            f"identities of the batch go from {low} to {high}; the head was made for 0 to "
            f"{num_ids - 1}: number them so, or make the head with more identities"
        )
