"""ElasticFace: a margin drawn anew for every sample and step."""

import torch
from torch import Tensor

from facescale.margins.angles import angle_added, cos_of_sum
from facescale.margins.base import Margin, TargetLogits

_WORD = 0xFFFFFFFF


def _mixed(x: Tensor) -> Tensor:
    """A bijective hash of 32-bit words held in int64 (multipliers below 2^31, so that nothing overflows)."""
    x = (x ^ (x >> 16)) * 0x21F0AAAD & _WORD
    x = (x ^ (x >> 15)) * 0x735A2D97 & _WORD
    return x ^ (x >> 15)


def normal_numbers(seed: int, draw: Tensor, count: int) -> Tensor:
    """``count`` standard normal numbers, a pure function of (seed, draw, position); float32, draw's device.

    The same on every process and after a resume, without asking the device for its generator's state.

    Args:
        seed: any integer.
        draw: int64, 0-d; the number of the draw.
        count: how many.
    """
    row = _mixed(_mixed((draw + seed) & _WORD) ^ (seed & _WORD))
    bits = _mixed((row + torch.arange(count, device=draw.device) * 0x61C88647) & _WORD)
    uniform = ((bits >> 9).float() + 0.5) / 2**23  # exact in float32, never 0 or 1
    return torch.erfinv(2 * uniform - 1) * 2**0.5


class ElasticArc(Margin):
    """cos(theta + m_i), m_i drawn from N(m, std) per sample (Boutros et al., ElasticFace, CVPRW 2022).

    ``plus`` (ElasticFace-Arc+): the drawn margins are dealt out by rank, the largest to the sample farthest
    from its centre. ``compat`` with ``plus`` repeats the release, which indexes the sorted margins
    with the sorting permutation instead of its inverse, so that ranks and margins are shuffled against each
    other; it also leaves out the fallback beyond pi. In evaluation mode the margin is m.

    State: ``draws``, the number of batches so far; the draws depend on ``seed`` and it alone.

    Source: https://arxiv.org/abs/2109.09416

    Example:
        >>> margin = facescale.margins.build("elastic_arc", std=0.05)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [32.91, 6.4, -12.8]

    Args:
        scale: factor s.
        m: mean margin, radians.
        std: standard deviation (0.0175 in the paper's Arc+).
        plus: deal the margins by rank.
        seed: seed of the draws.
        interclass_filter: cosine above which a negative counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range.
    """

    draws: Tensor

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m: float = 0.5,
        std: float = 0.05,
        plus: bool = False,
        seed: int = 0,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale, interclass_filter, compat)
        if std < 0:
            raise ValueError(
                f"standard deviation of the margin is {std}; it must be 0 or more (0.05 is usual)"
            )
        self.m, self.std, self.plus, self.seed = m, std, plus, seed
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def prepare(
        self, cos_B: Tensor, norm_B: Tensor | None = None, has_B: Tensor | None = None
    ) -> TargetLogits:
        """Draw the margins of this batch."""
        target = super().prepare(cos_B, norm_B, has_B)
        if self.training:
            z_B = normal_numbers(self.seed, self.draws, len(cos_B))
            self.draws += 1
            m_B = self.m + self.std * z_B.to(target.cos_B)
            target.extra["m"] = self._dealt(m_B, target.cos_B.detach(), has_B) if self.plus else m_B
        else:
            target.extra["m"] = torch.full_like(target.cos_B, self.m, requires_grad=False)
        return target

    def _dealt(self, m_B: Tensor, cos_B: Tensor, has_B: Tensor | None) -> Tensor:
        """The margins, small ones to samples near their centre; samples without a centre take no part."""
        if has_B is not None:  # both sorts move the absent ones to the end
            m_B, cos_B = m_B.masked_fill(~has_B, torch.inf), cos_B.masked_fill(~has_B, -2.0)
        ascending_B, nearest_B = m_B.sort().values, cos_B.argsort(descending=True)
        dealt_B = (
            ascending_B[nearest_B]
            if self.compat
            else torch.empty_like(m_B).scatter(0, nearest_B, ascending_B)
        )
        return dealt_B.nan_to_num(posinf=self.m)

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        m_B = target.extra["m"] * self.strength
        return self.scale * (cos_of_sum(target.cos_B, m_B) if self.compat else angle_added(target.cos_B, m_B))


class ElasticCos(ElasticArc):
    """cos(theta) - m_i, m_i drawn from N(m, std) per sample (Boutros et al., ElasticFace, CVPRW 2022).

    Options as ``ElasticArc``; std is 0.02 in the paper's Cos+.

    Source: https://arxiv.org/abs/2109.09416

    Example:
        >>> margin = facescale.margins.build("elastic_cos", std=0.05)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [39.34, 6.4, -12.8]
    """

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m: float = 0.35,
        std: float = 0.05,
        plus: bool = False,
        seed: int = 0,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(
            scale=scale,
            m=m,
            std=std,
            plus=plus,
            seed=seed,
            interclass_filter=interclass_filter,
            compat=compat,
        )

    def target(self, target: TargetLogits) -> Tensor:
        """Target-class logit, (B,)."""
        return self.scale * (target.cos_B - target.extra["m"] * self.strength)
