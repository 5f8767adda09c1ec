"""Functions of an angle that is known by its cosine, with exact gradients that stay finite at cos = +-1."""

import torch
from torch import Tensor


def cos_of_sum(cos_B: Tensor, margin: float | Tensor) -> Tensor:
    """cos(theta + m) = cos(theta) cos(m) - sin(theta) sin(m)."""
    m = torch.as_tensor(margin, dtype=cos_B.dtype, device=cos_B.device)
    # d sin / d cos grows without bound towards cos = +-1; below sin = 0.001 it is cut
    sin_B = (1 - cos_B * cos_B).clamp_min(1e-6).sqrt()
    return cos_B * m.cos() - sin_B * m.sin()


def angle_added(cos_B: Tensor, margin: float | Tensor) -> Tensor:
    """cos(theta + m), kept monotonic in theta.

    Beyond theta + m = pi it would rise again, so cos(theta) - m sin(m) takes over (the fallback of ArcFace's
    first release); below theta + m = 0 (a negative margin) it stays 1.

    Args:
        cos_B: cos(theta) in [-1, 1].
        margin: m in radians, a number or one per sample (then with gradient).
    """
    m = torch.as_tensor(margin, dtype=cos_B.dtype, device=cos_B.device)
    below_pi = cos_B >= (torch.pi - m.clamp_min(0)).cos()
    value_B = torch.where(below_pi, cos_of_sum(cos_B, m), cos_B - m * m.sin())
    return value_B.masked_fill((m < 0) & (cos_B > m.cos()), 1.0)


def angle_multiplied(cos_B: Tensor, factor: float, added: float = 0.0) -> Tensor:
    """SphereFace's psi of phi = factor * theta + added: (-1)^k cos(phi) - 2k with k = floor(phi / pi).

    Equals cos(phi) up to phi = pi and goes on falling from there.
    """
    phi_B = factor * cos_B.clamp(-1 + 1e-6, 1 - 1e-6).arccos() + added
    k_B = (phi_B.detach() / torch.pi).floor()
    return (1 - 2 * k_B.remainder(2)) * phi_B.cos() - 2 * k_B


def straight_through(value_B: Tensor, cos_B: Tensor) -> Tensor:
    """``value_B`` with the gradient of ``cos_B`` ("characteristic gradient detachment" in SphereFace-R)."""
    return cos_B + (value_B - cos_B).detach()
