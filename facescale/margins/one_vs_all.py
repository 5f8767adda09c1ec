"""One-against-all losses with a learned bias: SphereFace2 and UniFace."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.margins.angles import straight_through
from facescale.margins.base import Margin, TargetLogits, as_prepared


class Biased(Margin):
    """A loss per class, summed, with one learned bias for all pairs of sample and class."""

    reduction = "sum"
    plain_negatives = False

    def __init__(self, scale: float, interclass_filter: float, compat: bool) -> None:
        super().__init__(scale, interclass_filter, compat)
        self.bias = nn.Parameter(torch.zeros(()))

    def prepare(
        self, cos_B: Tensor, norm_B: Tensor | None = None, has_B: Tensor | None = None
    ) -> TargetLogits:
        """Keep the bias as it is in this step."""
        target = super().prepare(cos_B, norm_B, has_B)
        target.extra["bias"] = self.bias.detach().to(target.cos_B.dtype).repeat(len(target.cos_B))
        return target

    def bias_of(self, target: TargetLogits) -> Tensor:
        """The bias of this step for each sample, (B,)."""
        return as_prepared(self.bias, target.extra["bias"])


class SphereFace2(Biased):
    """A binary question per class: this person or not (Wen et al., SphereFace2, ICLR 2022, form C).

    g(c) = 2 ((c + 1) / 2)^t - 1. Target class (w / s) a softplus(-(s (g(c) - m) + b)), others
    (w / s) (1 - a) softplus(s (g(c) + m) + b), summed over classes. The bias b is learned; it starts where
    the two sides pull equally hard at c = 0, given the number of classes.
    ``compat``: the gradient of c instead of g's, as OpenSphere's release trains.

    State: ``bias``, 0-d parameter.

    Source: https://arxiv.org/abs/2108.01513

    Example:
        >>> margin = facescale.margins.build("sphereface2", alpha=0.7)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [6.01, 0.0, 0.0]

    Args:
        scale: factor s (the paper's r).
        m: margin.
        alpha: weight of the target class against the negatives (the paper's lambda).
        t: bend of g; 1 is none.
        weight: weight of the whole loss (``lw`` in the release).
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        scale: float = 40.0,
        m: float = 0.4,
        alpha: float = 0.7,
        t: float = 3.0,
        weight: float = 50.0,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if not 0 < alpha < 1:
            raise ValueError(f"alpha is {alpha}; it is the share of the target class, between 0 and 1")
        if t < 1:
            raise ValueError(f"t is {t}; it must be 1 or more, or the gradient is infinite at cosine -1")
        self.m, self.alpha, self.t, self.weight = m, alpha, t, weight

    def set_num_negatives(self, num_negatives: int) -> None:
        """Start the bias where alpha sigmoid(-target) = (1 - alpha) num_negatives sigmoid(negative) at 0."""
        at_zero = 2 * 0.5**self.t - 1
        target, negative = self.scale * (at_zero - self.m), self.scale * (at_zero + self.m)
        z = self.alpha / ((1 - self.alpha) * num_negatives)
        # x = exp(bias + negative) solves x (1 + x exp(target - negative)) = z (1 + x), the positive root; in
        # the release's form, which does not cancel for small z
        root = math.sqrt((1 - z) ** 2 + 4 * z * math.exp(target - negative))
        bias = math.log(2 * z) - math.log(1 - z + root) - negative
        with torch.no_grad():
            self.bias.fill_(bias)

    def _bent(self, cos: Tensor) -> Tensor:
        value = 2 * ((cos + 1) / 2).pow(self.t) - 1
        return straight_through(value, cos) if self.compat else value

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class loss, (B,)."""
        logit_B = self.scale * (self._bent(target.cos_B) - self.m * self.strength) + self.bias_of(target)
        return self.weight / self.scale * self.alpha * F.softplus(-logit_B)

    def _negatives(self, cos_BC: Tensor, target: TargetLogits) -> Tensor:
        """Losses of the negatives, (B, C)."""
        logit_BC = self.scale * (self._bent(cos_BC) + self.m * self.strength) + self.bias_of(target)[:, None]
        return self.weight / self.scale * (1 - self.alpha) * F.softplus(logit_BC)


class UniFace(Biased):
    """Unified cross-entropy: one threshold for all pairs (Zhou et al., UniFace, ICCV 2023).

    Target class softplus(-(s (c - m) - b)), negatives w softplus(s c - b), summed over classes. The
    threshold b is learned and starts at log(10 C) for C classes in the comparison.
    ``compat``: the arguments of softplus are clipped to [-s, s], which stops gradients beyond.

    State: ``bias``, 0-d parameter.

    Example:
        >>> margin = facescale.margins.build("uniface", m=0.4)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [0.0, 6.4, 0.0]

    Args:
        scale: factor s.
        m: subtracted from the target cosine.
        weight: weight of the other classes (the paper's lambda).
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m: float = 0.4,
        weight: float = 1.0,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if weight <= 0:
            raise ValueError(f"weight of the other classes is {weight}; it must be positive (1 is usual)")
        self.m, self.weight = m, weight

    def set_num_negatives(self, num_negatives: int) -> None:
        """Start the threshold at log(10 C), C = the negatives and the target class."""
        with torch.no_grad():
            self.bias.fill_(math.log(10 * (num_negatives + 1)))

    def _clipped(self, x: Tensor) -> Tensor:
        return x.clamp(-self.scale, self.scale) if self.compat else x

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class loss, (B,)."""
        logit_B = self.scale * (target.cos_B - self.m * self.strength) - self.bias_of(target)
        return F.softplus(-self._clipped(logit_B))

    def _negatives(self, cos_BC: Tensor, target: TargetLogits) -> Tensor:
        """Losses of the negatives, (B, C)."""
        return self.weight * F.softplus(self._clipped(self.scale * cos_BC - self.bias_of(target)[:, None]))
