"""F2C's step on a GPU: both passes at once, in a few launches, after all bookkeeping was done on the host."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facescale import kernels
from facescale.heads.f2c_pool import Writes
from facescale.heads.slot_head import on
from facescale.heads.softmax import NOTHING, sample_losses
from facescale.margins import Margin
from facescale.ops import unit
from facescale.pools import EMPTY, IntArray

# W passes (2), P rows of a slot (planes), V = W x P views of the pool, G batch, S slots, D embedding size

MAX_BATCH = 1024


@dataclass(frozen=True)
class PlannedPass:
    """What the host knows of a pass before the device does anything.

    Attributes:
        writes: what its gallery features do to the pool.
        slot_G: slot of each probe, EMPTY for outliers.
        count: first slots that count.
    """

    writes: Writes
    slot_G: IntArray
    count: int


@dataclass(frozen=True)
class Tables:
    """All that the device must know of a step, from one copy.

    Attributes:
        own_VG: slot of each sample in each view, -1 for outliers.
        outlier_WG: samples of each pass that are outliers; the rest of the list is -1.
        id_VG: identities of the probes.
        known_K: samples of the last pass that are none.
        weight_2VG: float32, weights of the samples' losses and of their nearness to other slots.
        place_N: cells of the views (V x S) whose row is not the pool's first one.
        row_N: their rows: of the pool (P x slots), then of the gallery features (2 G); -1 does not count.
        newer_WG: row of the pool that has the newer feature of each gallery feature's identity, or -1.
        write_M: rows of the pool that the last pass writes.
        source_M: features that it writes there.
    """

    own_VG: Tensor
    outlier_WG: Tensor
    id_VG: Tensor
    known_K: Tensor
    weight_2VG: Tensor
    place_N: Tensor
    row_N: Tensor
    newer_WG: Tensor
    write_M: Tensor
    source_M: Tensor


def kernels_of_pool(margin: Margin, hard: int, like: Tensor) -> ModuleType | None:
    """``kernels.pool_views`` where it computes what a margin needs that ``class_softmax`` takes, and runs.

    Args:
        margin: the margin.
        hard: nearest slots of an outlier.
        like: rows; on a GPU the kernels are compared with torch first.
    """
    plain = type(margin).prepare is Margin.prepare  # nothing of a whole comparison, nothing drawn
    module = kernels.gpu_kernels("pool_views") if plain else None
    if module is None or hard > module.MAX_HARD:
        return None
    on_gpu = like.device.type == "cuda"
    if on_gpu and not kernels.agree("F2C's kernels", check, module, like.device, like.shape[-1]):
        return None
    return module


def check(
    module: ModuleType, device: torch.device, products: torch.dtype, dim: int, tolerance: float
) -> None:
    """Compare the kernels with torch on a few rows of ``dim`` numbers.

    Raises:
        ArithmeticError: they differ by more than ``tolerance``.
    """
    generator = torch.Generator().manual_seed(0)
    raw_ND = torch.randn(60, dim, generator=generator, device="cpu").to(device)
    unit_ND = unit(raw_ND)
    w_ND, more_MD, e_WGD = unit_ND[:40], unit_ND[40:46], unit_ND[46:58].view(2, 6, dim)
    row_VS = torch.arange(40, device=device).repeat(2, 1)
    row_VS[0, 3], row_VS[1, 5], row_VS[1, 39] = 42, 45, EMPTY
    own_VG = torch.tensor([[3, 1, 2, -1, -1, 5], [5, -1, 0, 9, 9, 4]]).to(device)
    outlier_WG = torch.tensor([[4, 3, -1, -1, -1, -1], [1, -1, -1, -1, -1, -1]]).to(device)
    views = module.PoolViews(w_ND, more_MD, row_VS, own_VG, outlier_WG, 3)
    cos_VGS = e_WGD @ unit_ND[row_VS].transpose(1, 2)
    cos_VGS = cos_VGS.masked_fill((row_VS == EMPTY)[:, None], -torch.inf)
    own = own_VG[:, :, None] == torch.arange(40, device=device)
    of_class_VG = torch.where(own, cos_VGS, 0.0).sum(2)
    push_VG = torch.where(own_VG < 0, cos_VGS.topk(3, 2).values.clamp_min(0).sum(2), 0.0)
    value_VG = (16 * cos_VGS).masked_fill(own, -torch.inf).logsumexp(2)
    found_cos_VG, found_push_VG, vector_VGD = module.pulls(e_WGD, views)
    found_value_N, _ = module.value(e_WGD, views, products, 16.0)
    pairs = {
        "own cosine": (of_class_VG, found_cos_VG),
        "nearness": (push_VG, found_push_VG),
        "gradient": (of_class_VG + push_VG, torch.linalg.vecdot(vector_VGD, e_WGD)),
        "value": (value_VG, found_value_N.view_as(value_VG)),
        "unit row": (unit_ND, module.renewed(raw_ND, w_ND, None, 1.0)),
    }
    for name, (here, there) in pairs.items():
        if not (here - there).abs().max() <= tolerance * here.abs().max():
            raise ArithmeticError(f"the {name} differs from torch's")


def tables(
    passes: list[PlannedPass],
    id_WG: list[IntArray],
    newer_WG: IntArray,
    sizes: tuple[int, int, int],
    outlier_weight: float,
    like: Tensor,
) -> Tables:
    """Make the tables of a step, and copy them.

    Args:
        passes: both, in order.
        id_WG: identities of the probes of each.
        newer_WG: see ``Tables``.
        sizes: rows of a slot, slots, most nearest slots of an outlier.
        outlier_weight: weight of the outliers' term.
        like: where they go.
    """
    planes, slots, hard = sizes
    slot_WG = np.stack([one.slot_G for one in passes])
    known_WG = slot_WG != EMPTY
    num_known = known_WG.sum(1, keepdims=True)
    num_outliers = len(slot_WG[0]) - num_known
    most = np.array([[min(hard, one.count)] for one in passes])
    weight = np.stack(
        [
            known_WG / np.maximum(num_known, 1),
            outlier_weight * ~known_WG / np.maximum(num_outliers * most, 1),
        ]
    )
    outlier_WG = np.where(known_WG, EMPTY, np.arange(len(slot_WG[0])))
    outlier_WG = -np.sort(-outlier_WG, axis=1)  # those that there are first: programs without any end at once
    place_N, row_N = _overlay(passes, planes, slots)
    writes = passes[1].writes
    weight_2VG = np.repeat(weight, planes, 1).astype(np.float32)
    host = (
        np.repeat(slot_WG, planes, 0),
        outlier_WG,
        np.repeat(np.stack(id_WG), planes, 0),
        np.flatnonzero(known_WG[1]),
        weight_2VG.reshape(-1).view(np.int64),
        *(place_N, row_N, newer_WG),
        np.concatenate([plane * slots + part for plane, part in enumerate(writes.slots)]),
        np.concatenate(writes.sources),
    )
    there = on(like, *host)
    there[4] = there[4].view(torch.float32).view(weight_2VG.shape)
    return Tables(*there)


def _overlay(passes: list[PlannedPass], planes: int, slots: int) -> tuple[IntArray, IntArray]:
    """Cells of the views whose row is not the pool's first one, and their rows."""
    batch, width = len(passes[0].slot_G), max(one.count for one in passes)
    places, rows = [], []
    for number, one in enumerate(passes):
        features = planes * slots + (1 - number) * batch  # the first pass has those of y, which come second
        view_PS = np.arange(width)[None].repeat(planes, 0)
        view_PS[:, one.count :] = EMPTY
        view_PS[:, one.writes.slots[0]] = features + one.writes.sources[0]
        if planes == 2:
            view_PS[1, one.writes.double] = slots + one.writes.double
            new = np.isin(one.writes.slots[1], one.writes.double)
            view_PS[1, one.writes.slots[1][new]] = features + one.writes.sources[1][new]
        flat = view_PS.reshape(-1)
        place = np.flatnonzero(flat != np.tile(np.arange(width), planes))
        places.append(number * planes * width + place)
        rows.append(flat[place])
    return np.concatenate(places), np.concatenate(rows)


def compare(
    module: ModuleType,
    margin: Margin,
    unit_WGD: Tensor,
    gallery_MD: Tensor,
    pool_ND: Tensor,
    table: Tables,
    rest: tuple[int, int, torch.dtype],
) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines to the own slots, log-sum-exp of the others, sums of the outliers' nearest cosines, (V, G).

    Args:
        module: ``kernels.pool_views``.
        margin: for its scale.
        unit_WGD: unit embeddings of the probes.
        gallery_MD: unit embeddings of the gallery.
        pool_ND: all rows of the pool.
        table: see there.
        rest: slots of a view, most nearest slots of an outlier, precision of products.
    """
    width, hard, products = rest
    row_VS = torch.arange(width, device=pool_ND.device).repeat(len(table.own_VG), 1)
    row_VS.view(-1)[table.place_N] = table.row_N
    views = module.PoolViews(pool_ND, gallery_MD, row_VS, table.own_VG, table.outlier_WG, hard)
    found: tuple[Tensor, Tensor, Tensor]
    found = _Comparison.apply(unit_WGD, module, views, products, margin.scale)  # type: ignore[no-untyped-call]
    return found


def total_loss(margin: Margin, logit_VG: Tensor, value_VG: Tensor, push_VG: Tensor, table: Tables) -> Tensor:
    """Sum over all views of the samples' mean loss and of the outliers' mean nearness to other slots."""
    loss_VG = sample_losses(margin, logit_VG, value_VG)
    of_known, of_outliers = table.weight_2VG.flatten(1)
    return torch.dot(loss_VG.flatten(), of_known) + torch.dot(push_VG.flatten(), of_outliers)


class _Comparison(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, e_WGD: Tensor, module: ModuleType, views: Any, products: torch.dtype, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        value_N, grad_ND = module.value(e_WGD, views, products, scale)
        cos_VG, push_VG, vector_VGD = module.pulls(e_WGD, views)
        ctx.save_for_backward(grad_ND.view_as(vector_VGD), vector_VGD)
        ctx.num_passes = len(e_WGD)
        return cos_VG, value_N.clamp_min(NOTHING).view_as(cos_VG), push_VG

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        of_cos, of_value, of_push = grads
        grad_VGD, vector_VGD = ctx.saved_tensors
        total_VGD = of_value[:, :, None] * grad_VGD
        total_VGD.addcmul_((of_cos + of_push)[:, :, None], vector_VGD)
        return total_VGD.view(ctx.num_passes, -1, *grad_VGD.shape[1:]).sum(1), None, None, None, None
