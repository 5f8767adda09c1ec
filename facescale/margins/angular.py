"""Margins on the target angle alone: ArcFace, CosFace, their sum, SphereFace, Sub-center ArcFace, Circle."""

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from facescale.margins.angles import angle_added, angle_multiplied, cos_of_sum, straight_through
from facescale.margins.base import Margin, TargetLogits


class Combined(Margin):
    """cos(m1 theta + m2) - m3 (Deng et al., ArcFace, CVPR 2019, eq. 4).

    By default the exact function with its exact gradient, decreasing in theta: beyond m1 theta + m2 = pi
    ArcFace's fallback for m1 = 1 and SphereFace's continuation otherwise.

    ``compat`` gives what insightface's release computes: with m3 > 0 only m3 acts (m1, m2 are ignored); else
    cos(theta + m2) whose gradient is that of cos(theta) (straight-through), without a fallback.

    Source: https://arxiv.org/abs/1801.07698

    Example:
        >>> margin = facescale.margins.build("combined", m1=1.0, m2=0.3, m3=0.2)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [16.49, 6.4, -12.8]

    Args:
        scale: factor s.
        m1: multiplies the angle.
        m2: added to the angle, radians.
        m3: subtracted from the cosine.
        fallback: False for plain cos(theta + m2), rising again beyond pi (F2C's "Arc"; needs m1 = 1).
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range, or options that do not go together.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m1: float = 1.0,
        m2: float = 0.5,
        m3: float = 0.0,
        fallback: bool = True,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if m1 < 1 or m2 < 0 or m3 < 0:
            raise ValueError(
                f"combined margin got m1={m1}, m2={m2}, m3={m3}; needs m1 >= 1, m2 >= 0, m3 >= 0"
            )
        if m1 != 1 and ((compat and m3 == 0) or not fallback):
            raise ValueError(
                f"compat and fallback=False know m1=1 only, got m1={m1}; leave them out for another m1"
            )
        self.m1, self.m2, self.m3, self.fallback = m1, m2, m3, fallback

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        c = target.cos_B
        m1, m2, m3 = 1 + (self.m1 - 1) * self.strength, self.m2 * self.strength, self.m3 * self.strength
        if self.compat and self.m3 > 0:
            return self.scale * (c - m3)
        if self.compat:
            return self.scale * straight_through((c.detach().arccos() + m2).cos(), c)
        if m1 != 1:
            value = angle_multiplied(c, m1, m2)
        elif m2 > 0:
            value = angle_added(c, m2) if self.fallback else cos_of_sum(c, m2)
        else:
            value = c
        return self.scale * (value - m3)


class ArcFace(Combined):
    """cos(theta + m) (Deng et al., ArcFace, CVPR 2019, eq. 3).

    ``compat``: insightface's straight-through gradient; ``fallback=False``: no continuation beyond pi.

    Source: https://arxiv.org/abs/1801.07698

    Example:
        >>> margin = facescale.margins.build("arcface", m=0.5)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [17.4, 6.4, -12.8]

    Args:
        scale: factor s.
        m: added to the angle, radians.
        fallback: False for plain cos(theta + m), rising again beyond pi (F2C's "Arc").
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m: float = 0.5,
        fallback: bool = True,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(
            scale=scale, m2=m, fallback=fallback, interclass_filter=interclass_filter, compat=compat
        )


class CosFace(Combined):
    """cos(theta) - m (Wang et al., CosFace, CVPR 2018, eq. 4; m = 0.4 in insightface's recipes).

    Source: https://arxiv.org/abs/1801.09414

    Example:
        >>> margin = facescale.margins.build("cosface", m=0.4)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [19.2, 6.4, -12.8]

    Args:
        scale: factor s.
        m: subtracted from the cosine.
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.
    """

    def __init__(
        self, *, scale: float = 64.0, m: float = 0.4, interclass_filter: float = 0.0, compat: bool = False
    ) -> None:
        super().__init__(scale=scale, m2=0.0, m3=m, interclass_filter=interclass_filter, compat=compat)


class SphereFace(Margin):
    """psi(theta) = (-1)^k cos(m theta) - 2k with k = floor(m theta / pi) (Liu et al., SphereFace, CVPR 2017).

    With normalised embeddings and a scale, as in SphereFace-R (Liu et al., arXiv 2109.05565).
    ``compat``: the gradient of cos(theta) instead of psi's, as OpenSphere's release trains.

    Source: https://arxiv.org/abs/1704.08063 and https://arxiv.org/abs/2109.05565

    Example:
        >>> margin = facescale.margins.build("sphereface", m=1.7)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [6.51, 3.0, -6.0]

    Args:
        scale: factor s.
        m: multiplies the angle; 1 is no margin.
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self, *, scale: float = 30.0, m: float = 1.7, interclass_filter: float = 0.0, compat: bool = False
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if m < 1:
            raise ValueError(f"sphereface margin m is {m}; it multiplies the angle and must be 1 or more")
        self.m = m

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        c, m = target.cos_B, 1 + (self.m - 1) * self.strength
        value = angle_multiplied(c, m) if m > 1 else c
        return self.scale * (straight_through(value, c) if self.compat else value)


class SubCenterArcFace(ArcFace):
    """ArcFace with K centres per identity, the best of which counts (Deng et al., ECCV 2020).

    Wrong labels and odd images collect at the identity's weaker centres. The heads hold K rows per identity
    and take the maximum; here only their number is said.

    Example:
        >>> margin = facescale.margins.build("subcenter_arcface", subcentres=3)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [17.4, 6.4, -12.8]

    Args:
        scale: factor s.
        m: added to the angle, radians.
        subcentres: centres per identity, K.
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour (straight-through gradient).

    Raises:
        ValueError: an option out of range.
    """

    refuses: ClassVar[Mapping[str, str]] = {
        "attfc": "its centres are made from images, one per identity; there are no sub-centres to learn",
        "f2c": "its centres are made from images; there are no sub-centres to learn",
    }

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m: float = 0.5,
        subcentres: int = 3,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale=scale, m=m, interclass_filter=interclass_filter, compat=compat)
        if subcentres < 2:
            raise ValueError(
                f"subcentres is {subcentres}; it must be 2 or more (3 in the paper), or use arcface"
            )
        self.subcentres = subcentres


class Circle(Margin):
    """Circle loss, classification form (Sun et al., CVPR 2020).

    Target class a (c - (1 - m)) with a = [1 + m - c]+; negatives a (c - m) with a = [c + m]+. The weights a
    carry no gradient, so the gradient is a itself, as the paper has it.
    ``strength`` mixes these values with the plain cosine, as m = 0 would be the hardest setting.

    Source: https://arxiv.org/abs/2002.10857

    Example:
        >>> margin = facescale.margins.build("circle", m=0.25)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [-7.04, -13.44, -5.76]

    Args:
        scale: factor gamma.
        m: relaxation; smaller is stricter.
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: only changes what ``interclass_filter`` does.

    Raises:
        ValueError: an option out of range.
    """

    plain_negatives = False

    def __init__(
        self, *, scale: float = 256.0, m: float = 0.25, interclass_filter: float = 0.0, compat: bool = False
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if not 0 <= m < 1:
            raise ValueError(f"circle margin m is {m}; it must lie in 0..1 (0.25 in the paper)")
        self.m = m

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        c = target.cos_B
        pull = (1 + self.m - c.detach()).clamp_min(0) * (c - (1 - self.m))
        return self.scale * (c + self.strength * (pull - c))

    def _negatives(self, cos_BC: Tensor, target: TargetLogits) -> Tensor:
        """Logits of the negatives, (B, C)."""
        push = (cos_BC.detach() + self.m).clamp_min(0) * (cos_BC - self.m)
        return self.scale * (cos_BC + self.strength * (push - cos_BC))
