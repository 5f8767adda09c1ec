"""The loss of a head written densely in float64 with autograd: what heads are compared with."""

import torch
import torch.nn.functional as F
from torch import Tensor

from facescale.margins import Margin


def dense_loss(
    margin: Margin, e_BD: Tensor, w_CD: Tensor, id_B: Tensor, columns: Tensor | None = None
) -> Tensor:
    """Mean loss of raw embeddings against all rows (or against the classes in ``columns``)."""
    cos_BR = F.normalize(e_BD) @ F.normalize(w_CD).T
    cos_BC = cos_BR.view(len(e_BD), -1, margin.subcentres).amax(2)
    target_B = id_B
    if columns is not None:
        cos_BC = cos_BC[:, columns]
        target_B = torch.searchsorted(columns, id_B)
    norm_B = e_BD.norm(dim=1)
    out_BC = margin(cos_BC, target_B, norm_B)
    loss = F.cross_entropy(out_BC, target_B) if margin.reduction == "softmax" else out_BC.sum(1).mean()
    for term in (margin.penalty(norm_B), margin.batch_term(e_BD, id_B)):
        loss = loss if term is None else loss + term
    return loss
