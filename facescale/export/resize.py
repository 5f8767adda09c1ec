"""The contract's resize rule as tensor operations, so that an exported graph takes pictures of any size.

S side of the result, N length of an axis of the picture. It computes what `resized` of the loader does, up to
one grey level where both sides shrink or both grow; else the order of the two passes, which depends on
Pillow's version, changes sharp edges by a few. Weights are sums over the axis, so they follow the size at run
time. The arithmetic is Pillow's, step by step: where a pixel lies on a window's border, rounding decides.
"""

import torch
from torch import Tensor

_CUBIC = -0.5  # of Catmull-Rom, as Pillow's bicubic filter has it


def area_resize(images_BHW3: Tensor, side: int) -> Tensor:
    """Scale uint8 images (B, H, W, 3) to (B, S, S, 3): area average if both sides shrink, else bicubic."""
    x = images_BHW3.float()
    rows_H, columns_W = x[0, :, 0, 0], x[0, 0, :, 0]
    shrinks = (_length(rows_H) >= side) & (_length(columns_W) >= side)
    x = _rounded(torch.einsum("sw,bhwc->bhsc", _weights(columns_W, side, shrinks), x))
    x = _rounded(torch.einsum("sh,bhwc->bswc", _weights(rows_H, side, shrinks), x))
    return x.to(torch.uint8)


def _rounded(x: Tensor) -> Tensor:
    """Grey levels, halves rounded up as Pillow does."""
    return (x + 0.5).floor().clamp(0, 255)


def _length(axis_N: Tensor) -> Tensor:
    """N as a tensor: a Python number would be fixed when the graph is written."""
    return torch.ones_like(axis_N, dtype=torch.float64).sum()


def _weights(axis_N: Tensor, side: int, shrinks: Tensor) -> Tensor:
    """Share (S, N) of each input pixel in each output pixel."""
    number_N = torch.ones_like(axis_N, dtype=torch.float64).cumsum(0) - 1
    scale = _length(axis_N) / side
    centre_S1 = ((torch.arange(side, dtype=torch.float64, device=axis_N.device) + 0.5) * scale)[:, None]
    distance_SN = (number_N - centre_S1 + 0.5) * (1 / scale.clamp(min=1))
    first_S1, end_S1 = (centre_S1 - 0.5 * scale + 0.5).floor(), (centre_S1 + 0.5 * scale + 0.5).floor()
    inside_SN = (number_N >= first_S1) & (number_N < end_S1)
    box_SN = (inside_SN & (distance_SN > -0.5) & (distance_SN <= 0.5)).double()
    d = distance_SN.abs()
    near_SN = ((_CUBIC + 2) * d - (_CUBIC + 3)) * d * d + 1
    far_SN = (((d - 5) * d + 8) * d - 4) * _CUBIC
    zero = torch.zeros_like(d)
    cubic_SN = torch.where(d < 1, near_SN, torch.where(d < 2, far_SN, zero))
    weights_SN = torch.where(shrinks, box_SN, cubic_SN)
    return (weights_SN / weights_SN.sum(dim=1, keepdim=True)).float()
