"""Softmax over class centres on a GPU, without logits in memory; importing this needs triton.

Both kernels (``softmax_programs``) read the rows where they are, compute products in the precision of the
embeddings with float32 sums, and keep logits in registers. The forward kernel splits the classes over
programs, which write what the caller adds up: no atomic additions, so that a step gives the same bits again.
The other one recomputes the logits of a few rows, sums up their gradient over the batch, and moves them by
momentum SGD in the same pass.

Under TRITON_INTERPRET=1 they run on a CPU; products are then of float32 numbers rounded before.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from facescale.kernels.softmax_programs import compare, join, move_rows

# G batch, C classes, N rows of the store, P parts, D embedding size

MAX_DIM = 512  # SAMPLES x MAX_DIM float32 sums fit into the registers of a program
MAX_BATCH = 1024  # 16 rows and the products of all samples with them, as well
SAMPLES = 64  # of a program of the forward pass
CLASSES = 32  # that it looks at at a time
_CELLS = 16_384  # products that a program of the other kernel keeps
_STEP = 64  # most numbers of a row that it reads at a time
_PROGRAMS = 132  # of the forward pass: multiprocessors of an H100 or H200, where all of them run at once

_TYPES: dict[torch.dtype, Any] = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}


def _shape(dim: int, products: torch.dtype, on_cpu: bool) -> dict[str, Any]:
    """What both kernels are compiled for."""
    dot = torch.float32 if on_cpu else products
    return {"DIM": dim, "PRODUCTS": _TYPES[products], "DOT": _TYPES[dot], "num_warps": 8, "num_stages": 2}


def parts_of(num_classes: int, batch: int, views: int = 1) -> tuple[int, int]:
    """Programs of a view in the forward pass: parts of the classes, blocks of samples."""
    blocks = triton.cdiv(batch, SAMPLES)
    return max(1, min(_PROGRAMS // (blocks * views), triton.cdiv(num_classes, CLASSES))), blocks


def forward_bytes(batch: int, dim: int) -> int:
    """Most memory of what the programs of the forward pass leave, and of their sum."""
    parts, _ = parts_of(1 << 31, batch)
    return 4 * (parts * batch * (dim + 2) + batch * (dim + 1))


@dataclass(frozen=True)
class Rows:
    """Classes to compare with.

    Attributes:
        w_ND: rows, float32 or bfloat16.
        own_G: int64; a class with this key does not count for the sample.
        row_C: int64, rows of the classes; None is all rows.
        key_C: int64, keys of the classes; None is their position.
        unit: the rows have length 1.
        views: the batch is in so many equal parts, each of which is compared with its own part of ``row_C``.
        more_MD: rows N and up of ``row_C``; a row of -1 does not count. (Only with ``row_C``.)
    """

    w_ND: Tensor
    own_G: Tensor
    row_C: Tensor | None = None
    key_C: Tensor | None = None
    unit: bool = False
    views: int = 1
    more_MD: Tensor | None = None


def forward(e_GD: Tensor, rows: Rows, scale: float, bounded: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Largest logit, sum of exponentials and gradient by the embeddings over some rows.

    Args:
        e_GD: unit embeddings in the precision of products.
        rows: what they are compared with.
        scale: factor on the cosines.
        bounded: exp of every logit is a normal float32 number: nothing is subtracted, the largest stays 0.

    Returns:
        max_G, sum_G and grad_GD, relative to exp(max_G), as ``ChunkedSoftmax.forward`` has them.
    """
    max_PG, sum_PG, grad_PGD = _compared(e_GD, rows, scale, bounded)
    if bounded:
        return max_PG[0], sum_PG.sum(0), grad_PGD.sum(0)
    max_G = max_PG.amax(0)
    shrink_PG = (max_PG - max_G).exp_()
    return max_G, (sum_PG * shrink_PG).sum(0), torch.linalg.vecdot(shrink_PG[:, :, None], grad_PGD, dim=0)


def value(e_GD: Tensor, rows: Rows, scale: float, bounded: bool) -> tuple[Tensor, Tensor]:
    """Log-sum-exp over some rows (minus infinity over none) and its gradient by the embeddings.

    Arguments as for ``forward``; for one process that has all rows.
    """
    max_PG, sum_PG, grad_PGD = _compared(e_GD, rows, scale, bounded)
    parts, batch, dim = grad_PGD.shape
    value_G, grad_GD = sum_PG.new_empty(batch), grad_PGD.new_empty(batch, dim)
    join[(batch, triton.cdiv(dim, _STEP))](
        *(max_PG, sum_PG, grad_PGD, value_G, grad_GD, parts, batch),
        DIM=dim,
        STEP=_STEP,
        PARTS=max(16, triton.next_power_of_2(_PROGRAMS)),
    )
    return value_G, grad_GD


def _compared(e_GD: Tensor, rows: Rows, scale: float, bounded: bool) -> tuple[Tensor, Tensor, Tensor]:
    """What each part of the classes adds: max (P, G), sum (P, G), gradient (P, G, D)."""
    own_G, row_C, key_C, more_MD = rows.own_G, rows.row_C, rows.key_C, rows.more_MD
    num_classes = (len(rows.w_ND) if row_C is None else len(row_C)) // rows.views
    batch, dim = e_GD.shape
    parts, blocks = parts_of(num_classes, batch // rows.views, rows.views)
    max_PG, sum_PG = e_GD.new_empty(2, parts, batch, dtype=torch.float32)
    grad_PGD = e_GD.new_empty(parts, batch, dim, dtype=torch.float32)
    compare[(parts, blocks, rows.views)](
        *(e_GD, rows.w_ND, rows.w_ND if more_MD is None else more_MD),
        *(own_G if row_C is None else row_C, own_G if key_C is None else key_C, own_G),
        *(max_PG, sum_PG, grad_PGD, num_classes, batch // rows.views, len(rows.w_ND), scale),
        **{**_shape(dim, e_GD.dtype, e_GD.device.type == "cpu"), "num_stages": 2 if more_MD is None else 1},
        WIDE=max(16, triton.next_power_of_2(dim)),
        SAMPLES=SAMPLES,
        CLASSES=CLASSES if more_MD is None else CLASSES // 2,  # two tiles of rows share the memory
        GATHERED=row_C is not None,
        MORE=more_MD is not None,
        KEYED=key_C is not None,
        UNIT=rows.unit,
        BOUNDED=bounded,
    )
    return max_PG, sum_PG, grad_PGD


def move(
    e_GD: Tensor,
    w_ND: Tensor,
    m_ND: Tensor | None,
    own_G: Tensor,
    value_G: Tensor,
    grad_value_G: Tensor,
    grad_target_G: Tensor,
    *,
    scale: float,
    decay: float,
    momentum: float,
    lr: float,
    seed: int,
    row_C: Tensor | None = None,
) -> None:
    """Move rows in place by the gradient of the loss: m <- momentum m + g + decay w, w <- w - lr m.

    Args:
        e_GD: unit embeddings in the precision of products, at most MAX_BATCH of them.
        w_ND: rows, float32 or bfloat16 (rounded up or down at random).
        m_ND: their momentum, of the same type, or None.
        own_G: int64, position of the target class among the classes, negative where it is not there.
        value_G: log-sum-exp over the negatives of all processes.
        grad_value_G: gradient of the loss by it.
        grad_target_G: gradient of the loss by the target cosine.
        scale: factor on the cosines.
        decay: weight decay, added to the gradient.
        momentum: factor on the momentum.
        lr: rate.
        seed: of the random bits that round, 0 to 2^31 - 1.
        row_C: int64, distinct rows of the classes; None is all rows.
    """
    num_classes, batch = len(w_ND) if row_C is None else len(row_C), len(e_GD)
    samples = max(16, triton.next_power_of_2(batch))
    classes = min(64, _CELLS // samples)
    move_rows[(triton.cdiv(num_classes, classes),)](
        *(e_GD, w_ND, w_ND if m_ND is None else m_ND, own_G if row_C is None else row_C, own_G),
        *(value_G, grad_value_G, grad_target_G, num_classes, batch),
        *(scale, decay, momentum, lr, seed),
        **_shape(e_GD.shape[1], e_GD.dtype, e_GD.device.type == "cpu"),
        STEP=min(_STEP, classes),
        SAMPLES=samples,
        CLASSES=classes,
        GATHERED=row_C is not None,
        MOMENTUM=m_ND is not None,
        STOCHASTIC=w_ND.dtype is torch.bfloat16,
    )
