"""What a margin is: how cosines to the target class and to the negatives become logits (or losses)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from facescale.ops import as_float

# B batch, C classes (of this shard, chunk or sample), D embedding size


@dataclass
class TargetLogits:
    """What a margin knows of a batch before it sees the negatives; made by ``Margin.prepare``.

    Attributes:
        cos_B: cosine to the target class centre in [-1, 1], at least float32, with gradient.
        extra: (B,) tensors that a margin keeps from ``prepare`` for ``target`` and ``negatives``: margins
            drawn, running statistics as they were in this step (so that a chunk recomputed later sees the
            same).
    """

    cos_B: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


class Margin(nn.Module):
    """Base of all margins: small methods, so that heads can evaluate them class chunk by class chunk.

    One step is ``prepare(target cosines, norms)``, then ``target(...)`` once and ``negatives(chunk)`` for
    every chunk of classes. ``target`` and ``negatives`` are pure: they change no state and read running
    statistics from ``TargetLogits``, so a head may call ``negatives`` again in its backward pass.
    ``negatives`` uses the target cosine in comparisons or detached only: no gradient flows from it to
    ``TargetLogits``.

    With ``reduction == "softmax"`` both return scaled logits, the loss is their softmax cross-entropy; with
    ``"sum"`` both return losses and the sample's loss is the target's + the sum over all negatives.

    Learned parameters (the bias of UniFace and SphereFace2; scalars) are used by ``target`` and ``negatives``
    with gradient, at the value they had in ``prepare`` (see ``as_prepared``), so that a chunk recomputed
    after the optimizer's step is the same. A head that differentiates chunks by hand differentiates
    ``margin.parameters()`` along with the cosines, sums over chunks, and over processes where each holds a
    part of the classes.

    Attributes:
        scale: factor s on the cosines.
        strength: 0..1, multiplies the margin; the training loop ramps it (1 unless ``margin ramp`` is set).
            At 0 a softmax margin is the plain softmax of ``scale * cos``.
        subcentres: rows a class owns; heads take the best of them (1 for all but Sub-center ArcFace).
        plain_negatives: True when ``negatives`` is just ``scale * cos`` (heads then take a faster path).
        refuses: head name -> why this margin does not work with it; ``heads.build`` raises that reason.
        counts: made by ``observe`` in this step, or None for a margin that counts nothing.

    Raises:
        ValueError: an option out of range.
    """

    reduction: Literal["softmax", "sum"] = "softmax"
    subcentres: int = 1
    plain_negatives: bool = True
    refuses: ClassVar[Mapping[str, str]] = MappingProxyType({})
    counts: Tensor | None

    def __init__(self, scale: float, interclass_filter: float = 0.0, compat: bool = False) -> None:
        super().__init__()
        if scale <= 0:
            raise ValueError(f"margin scale is {scale}; it must be positive (64 is usual, 32 for small data)")
        if not 0 <= interclass_filter <= 1:
            raise ValueError(f"interclass_filter is {interclass_filter}; it is a cosine from 0 (off) to 1")
        self.scale = float(scale)
        self.interclass_filter = float(interclass_filter)
        self.compat = compat
        self.strength = 1.0
        self.register_buffer("counts", None)
        if interclass_filter > 0:
            self.plain_negatives = False

    def set_num_negatives(self, num_negatives: int) -> None:
        """Set how many negatives a sample is compared with; heads call it when they are built.

        Margins with a learned bias derive its start value from it; the others ignore it.
        """

    def prepare(
        self, cos_B: Tensor, norm_B: Tensor | None = None, has_B: Tensor | None = None
    ) -> TargetLogits:
        """Read the target cosines of the whole (global) batch; update running statistics when training.

        Args:
            cos_B: cosine to the target class centre.
            norm_B: L2 norms of the embeddings before normalisation; needed by quality-aware margins.
            has_B: False where the target class is absent (None: all present). There the target cosine
                counts as 1 and stays out of the statistics.
        """
        cos_B = as_float(cos_B).clamp(-1, 1)
        return TargetLogits(cos_B if has_B is None else cos_B.masked_fill(~has_B, 1.0))

    def target(self, target: TargetLogits) -> Tensor:
        """Logit (or loss) of the target class, (B,)."""
        raise NotImplementedError

    def negatives(self, cos_BC: Tensor, target: TargetLogits) -> Tensor:
        """Logits (or losses) of the negatives, (B, C); the target-class cells in it are ignored later.

        A cosine above ``interclass_filter`` counts as label noise: it leaves the softmax (or the sum) by
        default and becomes cosine 0 under ``compat``, as in Partial FC's release.
        """
        cos_BC = as_float(cos_BC).clamp(-1, 1)
        if self.interclass_filter <= 0:
            return self._negatives(cos_BC, target)
        noisy_BC = cos_BC.detach() > self.interclass_filter
        if self.compat:
            return self._negatives(cos_BC.masked_fill(noisy_BC, 0.0), target)
        nothing = float("-inf") if self.reduction == "softmax" else 0.0
        return self._negatives(cos_BC, target).masked_fill(noisy_BC, nothing)

    def _negatives(self, cos_BC: Tensor, target: TargetLogits) -> Tensor:
        """``negatives`` of cosines that are clamped and not filtered; margins override this one."""
        return self.scale * cos_BC

    def observe(self, cos_BC: Tensor, target: TargetLogits) -> None:
        """Count over a chunk of raw cosines, target-class cells included, into ``counts`` (RobustFace).

        Heads call it once per chunk in the forward pass, never when recomputing, and after the last chunk
        sum ``counts`` (if it is not None) over processes that hold different classes. The next ``prepare``
        uses it.
        """

    def penalty(self, norm_B: Tensor) -> Tensor | None:
        """A term added to the loss that depends on embedding norms only (MagFace's regulariser), or None."""
        return None

    def batch_term(self, e_BD: Tensor, id_B: Tensor) -> Tensor | None:
        """A term added to the loss that compares the samples of a batch (UniTSFace), or None.

        Like ``penalty`` a mean over the given batch. Given the gathered batch, every process computes the
        whole term, so each adds 1 / world_size of it.

        Args:
            e_BD: raw embeddings with gradient.
            id_B: int64 identities.
        """
        return None

    def forward(self, cos_BC: Tensor, target_B: Tensor, norm_B: Tensor | None = None) -> Tensor:
        """Dense form: all logits (or losses) of a batch at once.

        Args:
            cos_BC: raw cosines.
            target_B: int64 column of the target class, or -1 where the batch has none for this row.
            norm_B: see ``prepare``.

        Returns:
            (B, C) at least float32: scaled logits after the margin (or per-class losses).
        """
        target_B = target_B.reshape(-1)
        has_B = target_B >= 0
        column_B1 = target_B.clamp(min=0)[:, None]
        target = self.prepare(cos_BC.gather(1, column_B1)[:, 0], norm_B, has_B)
        self.observe(cos_BC, target)
        out_BC = self.negatives(cos_BC, target)
        value_B1 = torch.where(has_B[:, None], self.target(target)[:, None], out_BC.gather(1, column_B1))
        return out_BC.scatter(1, column_B1, value_B1)


def as_prepared(parameter: Tensor, then_B: Tensor) -> Tensor:
    """The value that ``then_B`` kept of a scalar parameter in ``prepare``, with the parameter's gradient."""
    return parameter + (then_B - parameter).detach()


@torch.no_grad()
def update_running_mean(running: Tensor, value: Tensor, weight: float) -> None:
    """Set running to (1 - weight) running + weight value; a value that is not finite is left out.

    So a step with bad embeddings, which the loop skips, leaves no mark, nor does a mean over no samples.
    """
    value = value.to(running.dtype)
    running.lerp_(torch.where(value.isfinite(), value, running), weight)
