"""F2C's comparisons with its pool, all of a step in a few launches; importing this needs triton."""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from facescale.kernels import class_softmax
from facescale.kernels.pool_programs import nearest, pull, renew

# W passes, V views of all passes, G batch, S classes of a view, N rows of the pool, D embedding size

MAX_HARD = 32  # nearest classes of a sample that the registers of a program have room for
_STEP = 64  # numbers of a row that are multiplied at a time
_LEAST_KEPT = 8


@dataclass(frozen=True)
class PoolViews:
    """What the probes of all passes are compared with.

    Attributes:
        w_ND: rows of the pool, float32.
        more_MD: rows N and up, float32.
        row_VS: int64, row of each class in each view; -1 where it does not count.
        own_VG: int64, class of each sample, -1 for outliers.
        outlier_WG: int64, samples of each pass that are outliers; the rest of the list is -1.
        hard: nearest classes of an outlier that count.
    """

    w_ND: Tensor
    more_MD: Tensor
    row_VS: Tensor
    own_VG: Tensor
    outlier_WG: Tensor
    hard: int


def renewed(k_BD: Tensor, w_ND: Tensor, row_B: Tensor | None, refresh: float) -> Tensor:
    """Rows (float32) of length 1, ``refresh`` of the way from unit rows of ``w_ND`` (-1: all of it)."""
    out_BD, dim = torch.empty_like(k_BD), k_BD.shape[1]
    renew[(len(k_BD),)](
        *(k_BD, w_ND, w_ND if row_B is None else row_B, out_BD, refresh),
        MOVED=row_B is not None,
        DIM=dim,
        WIDE=triton.next_power_of_2(dim),
    )
    return out_BD


def value(e_WGD: Tensor, views: PoolViews, products: torch.dtype, scale: float) -> tuple[Tensor, Tensor]:
    """Log-sum-exp (V * G,) over the classes but a sample's own, and its gradient (V * G, D)."""
    num_views, batch = views.own_VG.shape
    planes, dim = num_views // len(e_WGD), e_WGD.shape[2]
    factor_WPGD = e_WGD.new_empty(len(e_WGD), planes, batch, dim, dtype=products)
    factor_WPGD.copy_(e_WGD[:, None])
    rows = class_softmax.Rows(
        *(views.w_ND, views.own_VG.flatten(), views.row_VS.flatten()),
        unit=True,
        views=num_views,
        more_MD=views.more_MD,
    )
    return class_softmax.value(factor_WPGD.view(-1, dim), rows, scale, True)


def pulls(e_WGD: Tensor, views: PoolViews) -> tuple[Tensor, Tensor, Tensor]:
    """Where samples are drawn to, and outliers pushed from.

    Returns:
        (V, G) cosine of each sample to its class, cut to [-1, 1], 0 for outliers; (V, G) sum of the cosines
        of each outlier to its nearest classes, below 0 cut to 0, 0 for others; (V, G, D) gradient of both.
    """
    num_views, batch = views.own_VG.shape
    dim, num_classes = e_WGD.shape[2], views.row_VS.shape[1]
    parts, blocks = class_softmax.parts_of(num_classes, batch, num_views)
    keep = max(_LEAST_KEPT, triton.next_power_of_2(views.hard))
    key_VGPK = views.own_VG.new_empty(num_views, batch, parts, keep)
    given = e_WGD, views.w_ND, views.more_MD, views.row_VS
    sizes: dict[str, Any] = {"PLANES": num_views // len(e_WGD), "DIM": dim, "KEEP": keep}
    nearest[(parts, blocks, num_views)](
        *(*given, views.outlier_WG, key_VGPK, num_classes, batch, len(views.w_ND)),
        **sizes,
        STEP=_STEP,
        SAMPLES=class_softmax.SAMPLES,
        CLASSES=class_softmax.CLASSES,
    )
    cos_VG, push_VG = e_WGD.new_empty(2, num_views, batch)
    vector_VGD = e_WGD.new_empty(num_views, batch, dim)
    pull[(batch, num_views)](
        *(*given, views.own_VG, key_VGPK, cos_VG, push_VG, vector_VGD),
        *(num_classes, batch, parts, len(views.w_ND)),
        **sizes,
        HARD=views.hard,
        KEYS=triton.next_power_of_2(parts) * keep,
        WIDE=triton.next_power_of_2(dim),
    )
    return cos_VG, push_VG, vector_VGD
