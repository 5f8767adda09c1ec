"""What a head with class centres keeps of a batch between forward and the update of the rows."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from facescale.centres.row_block import RowBlock
from facescale.heads.class_chunks import places_in
from facescale.margins import TargetLogits
from facescale.ops import to_device

# B batch (of all processes), N rows read in the step, C classes, D embedding size


@dataclass
class SavedBatch:
    """What a step keeps of a batch: enough to compute the gradient of any chunk of rows later.

    Attributes:
        e_BD: unit embeddings, float32.
        factor_BD: these in the precision of products.
        target: what the margin knows of the batch, without gradient.
        column_B: position of the target class among the classes read, in host memory; negative where it is
            not there.
        value_B: log-sum-exp (or sum, for margins that sum) over the negatives of all processes.
        grad_value_B: gradient of the loss by ``value_B``; known after backward.
        grad_target_B: gradient of the loss by the target cosine; known after backward.
        inverse_N1: room for 1 / |w| of all rows read, which are needed twice; None where they are not kept.
        kept_NB: room for what ``ChunkedSoftmax`` keeps of the first rows read, in the precision of products;
            None where it keeps nothing.
        place_B: ``column_B`` on the device.
        member_C: which classes this batch was compared with, where rows of several batches move together.
    """

    e_BD: Tensor
    factor_BD: Tensor
    target: TargetLogits
    column_B: Tensor
    value_B: Tensor
    grad_value_B: Tensor
    grad_target_B: Tensor
    inverse_N1: Tensor | None = None
    kept_NB: Tensor | None = None
    member_C: Tensor | None = None

    def __post_init__(self) -> None:
        column_B, sample_B = self.column_B.sort()
        self._columns = column_B.tolist()
        there = to_device(self.e_BD.device, column_B, sample_B, self.column_B)
        self._column_B, self._sample_B, self.place_B = there

    def kept(self, start: int, num_rows: int) -> Tensor | None:
        """Room for what is kept of ``num_rows`` rows from ``start`` on, (R, B); None where nothing is."""
        if self.kept_NB is None or start + num_rows > len(self.kept_NB):
            return None
        return self.kept_NB[start : start + num_rows]

    def forget(self) -> None:
        """Keep no numbers of rows: their room is given to another batch."""
        self.inverse_N1 = self.kept_NB = None

    def target_cells(self, first: int, num_classes: int) -> tuple[Tensor, Tensor] | None:
        """Cells (class in the chunk, sample) of target classes in the chunk that starts at ``first``."""
        start, stop = bisect_left(self._columns, first), bisect_left(self._columns, first + num_classes)
        if start == stop:
            return None
        return self._column_B[start:stop] - first, self._sample_B[start:stop]


@dataclass
class SampledBatch:
    """A batch and the classes that it was compared with.

    Attributes:
        saved: see ``SavedBatch``.
        classes: classes of this process that it was compared with, in the order of ``block``; None is all.
        block: their rows where these are staged, valid until another batch is sampled.
    """

    saved: SavedBatch
    classes: Tensor | None
    block: RowBlock | None


def moving(
    pending: Sequence[SampledBatch],
    latest: SampledBatch | None,
    open_rows: Callable[[Tensor], tuple[Tensor | None, RowBlock | None]],
) -> tuple[Tensor | None, RowBlock | None, list[SavedBatch]]:
    """Classes that move in a step, their rows, and the batches with columns among these classes.

    Args:
        pending: batches that backward went through since the last step.
        latest: the batch that was sampled last.
        open_rows: gives classes in the order of their rows, and these, as ``ClassChunks.open``.
    """
    chosen = [sampled.classes for sampled in pending if sampled.classes is not None]
    if not chosen:
        return None, None, [sampled.saved for sampled in pending]
    if len(pending) == 1 and pending[0] is latest:
        return latest.classes, latest.block, [latest.saved]
    classes, block = open_rows(torch.cat(chosen).unique())
    assert classes is not None
    return classes, block, [on_classes(sampled, classes) for sampled in pending]


def on_classes(sampled: SampledBatch, classes: Tensor) -> SavedBatch:
    """The batch with columns among ``classes``, a union of several batches' classes, with nothing kept.

    Args:
        sampled: a batch that was compared with some of ``classes``.
        classes: local classes in the order of their rows.
    """
    saved, before = sampled.saved, sampled.classes
    assert before is not None
    column_B = saved.column_B
    target_B = torch.where(column_B >= 0, before[column_B], -1)
    return replace(
        saved,
        column_B=places_in(classes, target_B),
        inverse_N1=None,
        kept_NB=None,
        member_C=to_device(saved.e_BD.device, torch.isin(classes, before))[0],
    )
