"""Margins that read image quality from the norm of the embedding: MagFace and AdaFace."""

import torch
from torch import Tensor

from facescale.margins.angles import angle_added, cos_of_sum
from facescale.margins.base import Margin, TargetLogits, update_running_mean
from facescale.ops import as_float


def _required(norm_B: Tensor | None, name: str) -> Tensor:
    if norm_B is None:
        raise ValueError(f"margin {name} reads quality from embedding norms and got none; pass norm_B to it")
    return as_float(norm_B)


class MagFace(Margin):
    """A larger margin for larger norms, and a pull towards large norms (Meng et al., MagFace, CVPR 2021).

    a = |e| clipped to [la, ua]; m(a) = lm + (um - lm) (a - la) / (ua - la); target class
    cos(theta + m(a)), with gradient to the norm; plus ``lambda_g`` * mean(a / ua^2 + 1 / a).

    Source: https://arxiv.org/abs/2103.06627

    Example:
        >>> margin = facescale.margins.build("magface", la=10.0, ua=110.0)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> norm_B = torch.tensor([22.0])
        >>> out_BC = margin(cos_BC, target_B, norm_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [17.9, 6.4, -12.8]

    Args:
        scale: factor s.
        la: smallest norm.
        ua: largest norm.
        lm: margin at ``la``, radians.
        um: margin at ``ua``, radians.
        lambda_g: weight of the regulariser.
        easy_margin: no margin where cos(theta) <= 0 (the release's default), instead of ArcFace's fallback.
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: only changes what ``interclass_filter`` does.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        la: float = 10.0,
        ua: float = 110.0,
        lm: float = 0.45,
        um: float = 0.8,
        lambda_g: float = 35.0,
        easy_margin: bool = True,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if not 0 < la < ua:
            raise ValueError(f"magface norms are la={la}, ua={ua}; needs 0 < la < ua")
        self.la, self.ua, self.lm, self.um = la, ua, lm, um
        self.lambda_g, self.easy_margin = lambda_g, easy_margin

    def prepare(
        self, cos_B: Tensor, norm_B: Tensor | None = None, has_B: Tensor | None = None
    ) -> TargetLogits:
        """Keep each sample's margin.

        Raises:
            ValueError: no norms given.
        """
        target = super().prepare(cos_B, norm_B, has_B)
        a_B = _required(norm_B, "magface").clamp(self.la, self.ua)
        target.extra["m"] = (self.um - self.lm) / (self.ua - self.la) * (a_B - self.la) + self.lm
        return target

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        c, m_B = target.cos_B, target.extra["m"] * self.strength
        if self.easy_margin:
            return self.scale * torch.where(c > 0, cos_of_sum(c, m_B), c)
        return self.scale * angle_added(c, m_B)

    def penalty(self, norm_B: Tensor) -> Tensor:
        """lambda_g * mean(a / ua^2 + 1 / a)."""
        a_B = as_float(norm_B).clamp(self.la, self.ua)
        return self.lambda_g * (a_B / self.ua**2 + 1 / a_B).mean()


class AdaFace(Margin):
    """Hard samples weigh more where quality is high, less where it is low (Kim et al., AdaFace, CVPR 2022).

    z = h (n - mu) / (sigma + 0.001) clipped to [-1, 1], n = |e| clipped to [0.001, 100] without gradient,
    mu and sigma running means over batches (start 20 and 100), updated before use. Target class
    cos(theta - m z) - (m + m z).
    By default the value falls with theta everywhere (see ``angles.angle_added``); ``compat``: all cosines
    are clipped to +-(1 - 0.001) and theta - m z to [0.001, pi - 0.001], which stops gradients there, as in
    the release.

    State: ``batch_mean`` and ``batch_std``, 0-d.

    Source: https://arxiv.org/abs/2204.00964

    Example:
        >>> margin = facescale.margins.build("adaface", h=0.333)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> norm_B = torch.tensor([22.0])
        >>> out_BC = margin(cos_BC, target_B, norm_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [19.15, 6.4, -12.8]

    Args:
        scale: factor s.
        m: margin.
        h: sharpness of the quality measure.
        t_alpha: weight of the newest batch in mu and sigma (1 in the release's class, 0.01 in its scripts).
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range.
    """

    eps = 1e-3
    batch_mean: Tensor
    batch_std: Tensor

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m: float = 0.4,
        h: float = 0.333,
        t_alpha: float = 0.01,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if not 0 < t_alpha <= 1:
            raise ValueError(f"t_alpha is {t_alpha}; it is the weight of the newest batch, above 0 up to 1")
        self.m, self.h, self.t_alpha = m, h, t_alpha
        self.plain_negatives = self.plain_negatives and not compat
        self.register_buffer("batch_mean", torch.tensor(20.0))
        self.register_buffer("batch_std", torch.tensor(100.0))

    def prepare(
        self, cos_B: Tensor, norm_B: Tensor | None = None, has_B: Tensor | None = None
    ) -> TargetLogits:
        """Update the norm statistics when training; keep each sample's quality z.

        Raises:
            ValueError: no norms given.
        """
        target = super().prepare(cos_B, norm_B, has_B)
        n_B = _required(norm_B, "adaface").detach().clamp(0.001, 100)
        if self.training:
            update_running_mean(self.batch_mean, n_B.mean(), self.t_alpha)
            if len(n_B) > 1:
                update_running_mean(self.batch_std, n_B.std(), self.t_alpha)
        target.extra["z"] = ((n_B - self.batch_mean) / (self.batch_std + self.eps) * self.h).clamp(-1, 1)
        return target

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        m, z_B = self.m * self.strength, target.extra["z"]
        if self.compat:
            theta_B = target.cos_B.clamp(-1 + self.eps, 1 - self.eps).arccos() - m * z_B
            value = theta_B.clamp(self.eps, torch.pi - self.eps).cos()
        else:
            value = angle_added(target.cos_B, -m * z_B)
        return self.scale * (value - (m + m * z_B))

    def _negatives(self, cos_BC: Tensor, target: TargetLogits) -> Tensor:
        """Logits of the negatives, (B, C)."""
        return self.scale * (cos_BC.clamp(-1 + self.eps, 1 - self.eps) if self.compat else cos_BC)
