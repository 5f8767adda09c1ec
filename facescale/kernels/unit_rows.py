"""Rows of length 1, and AttFC's centres, in one launch each; importing this needs triton."""

from typing import Any, cast

import torch
import triton
from torch import Tensor

from facescale.kernels.row_programs import attend, unit_backward, unit_forward

# B rows, V views, D embedding size


def unit_and_norm(x_BD: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (float32) of length 1 and their lengths before, with gradient; zero rows stay zero."""
    return cast(tuple[Tensor, Tensor], _UnitAndNorm.apply(x_BD.contiguous()))  # type: ignore[no-untyped-call]


def attention_centres(
    q_BD: Tensor, k_VBD: Tensor, temperature: float, normalise_keys: bool
) -> tuple[Tensor, Tensor]:
    """What ``heads.attfc.generative_centres`` computes (float32), and the largest weight of each (B,)."""
    centre_BD, most_B = torch.empty_like(q_BD), q_BD.new_empty(len(q_BD))
    attend[(len(q_BD),)](
        *(q_BD.contiguous(), k_VBD.contiguous(), centre_BD, most_B, len(q_BD), temperature),
        VIEWS=len(k_VBD),
        UNIT_KEYS=normalise_keys,
        **_shape(q_BD),
    )
    return centre_BD, most_B


def _shape(x_BD: Tensor) -> dict[str, int]:
    dim = x_BD.shape[-1]
    return {"DIM": dim, "WIDE": triton.next_power_of_2(dim)}


class _UnitAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x_BD: Tensor) -> tuple[Tensor, Tensor]:
        e_BD, norm_B = torch.empty_like(x_BD), x_BD.new_empty(len(x_BD))
        unit_forward[(len(x_BD),)](x_BD, e_BD, norm_B, **_shape(x_BD))
        ctx.save_for_backward(e_BD, norm_B)
        ctx.set_materialize_grads(False)
        return e_BD, norm_B

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Tensor:
        e_BD, norm_B = ctx.saved_tensors
        of_unit, of_norm = grads
        of_unit = torch.zeros_like(e_BD) if of_unit is None else of_unit.contiguous()
        out_BD = torch.empty_like(e_BD)
        unit_backward[(len(e_BD),)](
            *(e_BD, norm_B, of_unit, norm_B if of_norm is None else of_norm.contiguous(), out_BD),
            HAS_NORM=of_norm is not None,
            **_shape(e_BD),
        )
        return out_BD
