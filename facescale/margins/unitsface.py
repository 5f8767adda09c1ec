"""UniTSFace: CosFace against the class centres plus one threshold for all pairs of samples."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.margins.angular import CosFace
from facescale.ops import cosine_logits


class UniTSFace(CosFace):
    """CosFace + unified-threshold sample-to-sample loss (Li et al., UniTSFace, NeurIPS 2023).

    The second term, for a sample with partners p (same identity, other image) and strangers n in the batch:
    mean_p softplus(-(g (c_p - m) - b)) + sum_n softplus(g c_n - b), averaged over samples that have a
    partner, so the loader should bring identities in pairs. The threshold b is learned; while it is not
    positive it is set to the mean over samples of log sum_n exp(g c_n), as in the release.
    The release compares with the latest embedding of every identity, a second C x D table, from the second
    epoch on; here the (gathered) batch stands for that table, from the start.

    State: ``bias``, 0-d parameter.

    Example:
        >>> margin = facescale.margins.build("unitsface", pair_m=0.1)
        >>> cos_BC, target_B = torch.tensor([[0.7, 0.1, -0.2]]), torch.tensor([0])
        >>> out_BC = margin(cos_BC, target_B)
        >>> [round(x, 2) for x in out_BC[0].tolist()]
        [19.2, 6.4, -12.8]

    Args:
        scale: factor s of CosFace.
        m: margin of CosFace.
        pair_scale: factor g.
        pair_m: margin between samples.
        pair_weight: weight of the sample-to-sample term.
        interclass_filter: cosine above which a class counts as label noise; 0 is off.
        compat: the released behaviour.

    Raises:
        ValueError: an option out of range.
    """

    refuses: ClassVar[Mapping[str, str]] = {
        "attfc": "it compares two images of an identity that both have a gradient; AttFC's batch holds one",
        "f2c": "it compares two images of an identity that both have a gradient; F2C sends them apart",
    }

    def __init__(
        self,
        *,
        scale: float = 64.0,
        m: float = 0.4,
        pair_scale: float = 64.0,
        pair_m: float = 0.1,
        pair_weight: float = 1.0,
        interclass_filter: float = 0.0,
        compat: bool = False,
    ) -> None:
        super().__init__(scale=scale, m=m, interclass_filter=interclass_filter, compat=compat)
        if pair_scale <= 0:
            raise ValueError(f"pair_scale is {pair_scale}; it must be positive (64 is usual)")
        self.pair_scale, self.pair_m, self.pair_weight = pair_scale, pair_m, pair_weight
        self.bias = nn.Parameter(torch.zeros(()))

    def batch_term(self, e_BD: Tensor, id_B: Tensor) -> Tensor:
        """The sample-to-sample term; 0 when no identity is there twice."""
        cos_BB = cosine_logits(e_BD, e_BD)
        same_BB = id_B[:, None] == id_B
        partner_BB = same_BB & ~torch.eye(len(id_B), dtype=torch.bool, device=id_B.device)
        logit_BB = self.pair_scale * cos_BB
        if self.training:
            self._start(logit_BB.detach().masked_fill(same_BB, -torch.inf))
        count_B = partner_BB.sum(1)
        pull_BB = F.softplus(self.bias + self.pair_scale * self.pair_m * self.strength - logit_BB)
        pull_B = (pull_BB * partner_BB).sum(1) / count_B.clamp_min(1)
        push_B = (F.softplus(logit_BB - self.bias) * ~same_BB).sum(1)
        has_B = count_B > 0
        return self.pair_weight * ((pull_B + push_B) * has_B).sum() / has_B.sum().clamp_min(1)

    @torch.no_grad()
    def _start(self, strangers_BB: Tensor) -> None:
        """Put the threshold where the strangers are, as long as it is not positive."""
        level = strangers_BB.logsumexp(1).mean()
        move = (self.bias <= 0) & level.isfinite()
        self.bias.copy_(torch.where(move, level.to(self.bias.dtype), self.bias))
