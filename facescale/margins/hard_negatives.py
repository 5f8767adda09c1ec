"""Margins that re-weight hard (or noisy) other classes: MV- and SV-softmax, CurricularFace, RobustFace."""

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from torch import Tensor

from facescale.margins.angles import angle_added, cos_of_sum
from facescale.margins.base import Margin, TargetLogits, update_running_mean

_FORGET = 0.01  # weight of the newest step in CurricularFace's and RobustFace's running means


class MVSoftmax(Margin):
    """Mis-classified vectors are pushed harder (Wang et al., MV-Softmax, AAAI 2020, adaptive form).

    Target class f = cos(theta) - m ("am") or cos(theta + m) ("arc"); another class with c > f becomes
    (1 + t) c + t.
    ``compat``: FaceX-Zoo's target class, f only where c > m ("am") or c > 0 ("arc"), else c.

    Source: https://arxiv.org/abs/1912.00833

    Example:
        >>> margin = facescale.margins.build("mv_softmax", t=0.2)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [11.2, 3.2, -6.4]

    Args:
        scale: factor s.
        m: margin of the target class (0.35 for am, 0.5 for arc in the paper).
        t: extra weight of hard classes, 0 for none.
        form: "am" subtracts m from the cosine, "arc" adds it to the angle.
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range.
    """

    plain_negatives = False

    def __init__(
        self,
        *,
        scale: float = 32.0,
        m: float = 0.35,
        t: float = 0.2,
        form: Literal["am", "arc"] = "am",
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if t < 0:
            raise ValueError(f"weight of hard classes t is {t}; it must be 0 (none) or more (0.2 is usual)")
        self.m, self.t, self.form = m, t, form

    def prepare(
        self, cos_B: Tensor, norm_B: Tensor | None = None, has_B: Tensor | None = None
    ) -> TargetLogits:
        """Keep the value above which another class is hard."""
        target = super().prepare(cos_B, norm_B, has_B)
        c, m = target.cos_B.detach(), self.m * self.strength
        target.extra["bar"] = c - m if self.form == "am" else cos_of_sum(c, m)
        return target

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        c, m = target.cos_B, self.m * self.strength
        if self.form == "am":
            value = torch.where(c > m, c - m, c) if self.compat else c - m
        else:
            value = torch.where(c > 0, cos_of_sum(c, m), c) if self.compat else angle_added(c, m)
        return self.scale * value

    def _negatives(self, cos_BC: Tensor, target: TargetLogits) -> Tensor:
        """Logits of the negatives, (B, C)."""
        t = self.t * self.strength
        hard = cos_BC > target.extra["bar"][:, None]
        return self.scale * torch.where(hard, (1 + t) * cos_BC + t, cos_BC)


class SVSoftmax(MVSoftmax):
    """Support vectors are pushed harder (Wang et al., SV-X-Softmax, arXiv 1812.11317).

    Target class f = c - m; another class with c > f becomes t c + t - 1: MV-Softmax with its t one less.
    ``compat``: F2C's "SV", whose target class is c - m only where c > m, else c.

    Source: https://arxiv.org/abs/1812.11317

    Example:
        >>> margin = facescale.margins.build("sv_softmax", t=1.2)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [9.6, 3.2, -6.4]

    Args:
        scale: factor s.
        m: margin of the target class.
        t: weight of hard classes, 1 for none.
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self,
        *,
        scale: float = 32.0,
        m: float = 0.4,
        t: float = 1.2,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        if t < 1:
            raise ValueError(f"weight of hard classes t is {t}; it must be 1 (none) or more (1.2 is usual)")
        super().__init__(scale=scale, m=m, t=t - 1, interclass_filter=interclass_filter, compat=compat)


class CurricularFace(Margin):
    """Hard classes weigh little at first and more as training succeeds (Huang et al., CVPR 2020).

    Target class cos(theta + m); another class with c > cos(theta + m) becomes c (t + c), where t is the
    running mean of the target cosine (weight 0.01, start 0), updated before it is used.

    State: ``t``, 0-d.

    Source: https://arxiv.org/abs/2004.00288

    Example:
        >>> margin = facescale.margins.build("curricular", m=0.5)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [17.4, 6.4, -12.8]

    Args:
        scale: factor s.
        m: added to the target angle, radians.
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: only changes what ``interclass_filter`` does.
    """

    plain_negatives = False
    t: Tensor

    def __init__(
        self, *, scale: float = 64.0, m: float = 0.5, interclass_filter: float = 0.0, compat: bool = False
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        self.m = m
        self.register_buffer("t", torch.zeros(()))

    def prepare(
        self, cos_B: Tensor, norm_B: Tensor | None = None, has_B: Tensor | None = None
    ) -> TargetLogits:
        """Update t when training; keep it and the value above which another class is hard."""
        target = super().prepare(cos_B, norm_B, has_B)
        c = target.cos_B.detach()
        if self.training:
            mean = c.mean() if has_B is None else c.masked_fill(~has_B, 0.0).sum() / has_B.sum()
            update_running_mean(self.t, mean, _FORGET)
        target.extra["t"] = self.t.to(c.dtype).repeat(len(c))
        target.extra["bar"] = cos_of_sum(c, self.m * self.strength)
        return target

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        return self.scale * angle_added(target.cos_B, self.m * self.strength)

    def _negatives(self, cos_BC: Tensor, target: TargetLogits) -> Tensor:
        """Logits of the negatives, (B, C)."""
        weight_BC = 1 + self.strength * (target.extra["t"][:, None] + cos_BC - 1)
        hard = cos_BC > target.extra["bar"][:, None]
        return self.scale * torch.where(hard, weight_BC * cos_BC, cos_BC)


class RobustFace(Margin):
    """Hard classes are pushed harder, classes that tell of a wrong label hardly at all.

    RobustFace (release DeepFaceCode/RobustFace; the loss drawn in MLA-ArcFace's figure). Target class
    f = cos(theta + m). Another class is noise where c > cos(theta - w), w = the band: the sample is nearer to
    that class by more than w; it becomes (1 - phi / (1 - noise))^2 c. Otherwise it is hard where c > f and
    becomes (1 + t) c. phi is the running share of cells (sample x class) that are neither (weight 0.01,
    start 0), and the band shrinks by the factor 1 - phi / (1 - noise) each step. As nearly all cells are
    easy, phi is mostly a clock: the band is closed after a few hundred steps.

    phi counts cells, so it is one step late (the release counts before it weighs). By default the
    factor 1 - phi / (1 - noise) stops at 0 and the band ends at theta = 0; ``compat`` lets the factor turn
    negative (and square), uses the release's continuation c - w sin(w) there, and keeps noisy cosines
    from being negative.

    State: ``phi`` and ``band``, 0-d; ``counts``, the hard and all cells of the last step.

    Example:
        >>> margin = facescale.margins.build("robustface", m=0.5)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [17.4, 6.4, -12.8]

    Args:
        scale: factor s.
        m: added to the target angle, radians.
        band: start of w, radians.
        t: extra weight of hard classes.
        noise: expected share of wrong labels in the data (0 for MS-Celeb-1M in the release).
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range.
    """

    plain_negatives = False
    refuses: ClassVar[Mapping[str, str]] = {
        "attfc": "it finds wrong labels among all classes; a queue of recent centres does not show them",
        "f2c": "it finds wrong labels among all classes; a pool of recent centres does not show them",
    }
    phi: Tensor
    band: Tensor
    counts: Tensor

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m: float = 0.5,
        band: float = 0.15,
        t: float = 0.2,
        noise: float = 0.0,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if not 0 <= noise < 1:
            raise ValueError(f"noise is {noise}; it is the share of wrong labels, from 0 to below 1")
        if not 0 <= band < torch.pi:
            raise ValueError(f"band is {band}; it is an angle in radians from 0 to pi (0.15 in the release)")
        self.m, self.t_hard, self.noise = m, t, noise
        self.register_buffer("phi", torch.zeros(()))
        self.register_buffer("band", torch.tensor(float(band)))
        self.counts = torch.zeros(2, dtype=torch.int64)

    def _trust(self) -> Tensor:
        """1 - phi / (1 - noise): what is left of a noisy class's weight."""
        trust = 1 - self.phi / (1 - self.noise)
        return trust if self.compat else trust.clamp_min(0)

    def prepare(
        self, cos_B: Tensor, norm_B: Tensor | None = None, has_B: Tensor | None = None
    ) -> TargetLogits:
        """Take over the counts of the last step when training; keep the two bars and the noisy weight."""
        target = super().prepare(cos_B, norm_B, has_B)
        c = target.cos_B.detach()
        if self.training:
            hard, cells = self.counts
            update_running_mean(self.phi, 1 - hard / cells, _FORGET)
            self.band.mul_(self._trust())
            self.counts.zero_()
        band = self.band.to(c.dtype)
        inside = (c - band * band.sin()) if self.compat else torch.ones_like(c)
        target.extra["bar"] = angle_added(c, self.m * self.strength)
        target.extra["noise_bar"] = torch.where(c <= band.cos(), cos_of_sum(c, -band), inside)
        target.extra["noise_weight"] = self._trust().square().to(c.dtype).repeat(len(c))
        return target

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        return self.scale * angle_added(target.cos_B, self.m * self.strength)

    def _negatives(self, cos_BC: Tensor, target: TargetLogits) -> Tensor:
        """Logits of the negatives, (B, C)."""
        noisy_BC = target.extra["noise_weight"][:, None] * cos_BC
        if self.compat:
            noisy_BC = noisy_BC.clamp_min(1e-30)
        noisy_BC = cos_BC + self.strength * (noisy_BC - cos_BC)
        hard_BC = (1 + self.strength * self.t_hard) * cos_BC
        out_BC = torch.where(cos_BC > target.extra["bar"][:, None], hard_BC, cos_BC)
        return self.scale * torch.where(cos_BC > target.extra["noise_bar"][:, None], noisy_BC, out_BC)

    @torch.no_grad()
    def observe(self, cos_BC: Tensor, target: TargetLogits) -> None:
        """Count hard and noisy cells; the target class counts as hard, as in the release."""
        if self.training:
            bar_B = torch.minimum(target.extra["bar"], target.extra["noise_bar"])
            self.counts[0] += (cos_BC > bar_B[:, None]).sum()
            self.counts[1] += cos_BC.numel()
