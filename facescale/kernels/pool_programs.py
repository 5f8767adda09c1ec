"""What each program of the kernels of ``pool_views`` does; importing this needs triton.

A class of a view is row ``row_ptr[view, class]`` of w, from ``split`` on of more; -1 is no row. Embeddings
are those of a pass, which PLANES views share.
"""

import triton
import triton.language as tl

from facescale.kernels.row_programs import TINY

NOBODY = tl.constexpr(-0x7FFFFFFFFFFFFF00)  # a key of no class; those of classes are above _LEAST
_LEAST = tl.constexpr(-0x7FF0000000000000)
_LOW = tl.constexpr(0xFFFFFFFF)  # bits of a key that are the class; the others order by cosine


@triton.jit
def _rows(w_ptr, more_ptr, row, d, split, DIM: tl.constexpr):
    """Numbers ``d`` of some rows, zeros of row -1."""
    early, late = tl.where(row < split, DIM, 0), tl.where(row >= split, DIM, 0)
    w = tl.load(w_ptr + row * DIM + d, mask=d < tl.where(row >= 0, early, 0), other=0.0)
    return w + tl.load(more_ptr + (row - split) * DIM + d, mask=d < late, other=0.0)


@triton.jit
def renew(
    k_ptr, w_ptr, row_ptr, out_ptr, refresh, MOVED: tl.constexpr, DIM: tl.constexpr, WIDE: tl.constexpr
):
    """A row of length 1, moved from an older one (where there is one) towards it."""
    b, d = tl.program_id(0).to(tl.int64), tl.arange(0, WIDE)
    k = tl.load(k_ptr + b * DIM + d, mask=d < DIM, other=0.0)
    k = k / tl.maximum(tl.sqrt(tl.sum(k * k, 0)), TINY)
    if MOVED:
        row = tl.load(row_ptr + b)
        old = tl.load(w_ptr + row * DIM + d, mask=d < tl.where(row >= 0, DIM, 0), other=0.0)
        moved = old + refresh * (k - old)
        moved = moved / tl.maximum(tl.sqrt(tl.sum(moved * moved, 0)), TINY)
        k = tl.where(row >= 0, moved, k)
    tl.store(out_ptr + b * DIM + d, k, mask=d < DIM)


@triton.jit(do_not_specialize=["num_classes", "batch", "split"])
def nearest(
    e_ptr,
    w_ptr,
    more_ptr,
    row_ptr,
    sample_ptr,
    key_ptr,
    num_classes,
    batch,
    split,
    PLANES: tl.constexpr,
    DIM: tl.constexpr,
    STEP: tl.constexpr,
    SAMPLES: tl.constexpr,
    CLASSES: tl.constexpr,
    KEEP: tl.constexpr,
):
    """Keys of the nearest classes of a part of them, for the samples that a pass lists (-1: none)."""
    part, parts = tl.program_id(0), tl.num_programs(0)
    view = tl.program_id(2).to(tl.int64)
    side = view // PLANES
    s = tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)
    sample = tl.load(sample_ptr + side * batch + s, mask=s < batch, other=-1)
    there = sample >= 0
    last = tl.where(tl.max(sample, 0) >= 0, num_classes, 0)
    lane = tl.arange(0, KEEP)
    best = tl.zeros((SAMPLES, KEEP), tl.int64) + (lane.to(tl.int64) + NOBODY)[None, :]
    for start in range(part * CLASSES, last, parts * CLASSES):
        c = start + tl.arange(0, CLASSES)
        row = tl.load(row_ptr + view * num_classes + c, mask=c < num_classes, other=-1)
        cos = tl.zeros((SAMPLES, CLASSES), tl.float32)
        for first in range(0, DIM, STEP):
            d = first + tl.arange(0, STEP)
            w = _rows(w_ptr, more_ptr, row[:, None], d[None, :], split, DIM)
            at = (side * batch + sample)[:, None] * DIM + d[None, :]
            e = tl.load(e_ptr + at, mask=there[:, None] & (d < DIM)[None, :], other=0.0)
            cos += tl.dot(e, tl.trans(w), input_precision="ieee")
        bits = cos.to(tl.int32, bitcast=True)
        ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(tl.int64) << 32
        key = tl.where((row >= 0)[None, :], ordered + c.to(tl.int64)[None, :], NOBODY)
        worst, most = tl.min(best, 1), tl.max(key, 1)
        while tl.max((most > worst).to(tl.int32), 0) > 0:
            better = (most > worst)[:, None]
            best = tl.where(better & (best == worst[:, None]), most[:, None], best)
            key = tl.where(better & (key == most[:, None]), NOBODY, key)
            worst, most = tl.min(best, 1), tl.max(key, 1)
    at = ((view * batch + sample) * parts + part)[:, None] * KEEP + lane[None, :]
    tl.store(key_ptr + at, best, mask=there[:, None])


@triton.jit(do_not_specialize=["num_classes", "batch", "parts", "split"])
def pull(
    e_ptr,
    w_ptr,
    more_ptr,
    row_ptr,
    own_ptr,
    key_ptr,
    cos_ptr,
    push_ptr,
    vector_ptr,
    num_classes,
    batch,
    parts,
    split,
    PLANES: tl.constexpr,
    HARD: tl.constexpr,
    KEEP: tl.constexpr,
    KEYS: tl.constexpr,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Cosine of a sample to its class, or the sum of those to its nearest classes; and the gradient."""
    g, view = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    d, n = tl.arange(0, WIDE), tl.arange(0, KEYS)
    at = view * batch + g
    e = tl.load(e_ptr + (view // PLANES * batch + g) * DIM + d, mask=d < DIM, other=0.0)
    own = tl.load(own_ptr + at)
    inside = own >= 0
    num_keys = tl.where(inside, 0, parts * KEEP)
    key = tl.load(key_ptr + at * parts * KEEP + n, mask=n < num_keys, other=NOBODY)
    key = tl.where(n < tl.where(inside, 1, 0), own, key)
    low, high = tl.where(inside, -1.0, 0.0), tl.where(inside, 1.0, float("inf"))
    vector = tl.zeros((WIDE,), tl.float32)
    total = tl.sum(vector, 0)
    for _ in range(HARD):
        chosen = tl.max(key, 0)
        there = chosen > _LEAST
        row = tl.load(row_ptr + view * num_classes + (chosen & _LOW), mask=there, other=-1)
        w = _rows(w_ptr, more_ptr, row, d, split, DIM)
        cos = tl.sum(e * w, 0)
        cut = tl.where(cos > high, high, tl.where(cos < low, low, cos))  # NaN stays
        total += tl.where(there, cut, 0.0)
        vector += tl.where(there & (cut == cos), w, 0.0)
        key = tl.where(key == chosen, NOBODY, key)
    tl.store(cos_ptr + at, tl.where(inside, total, 0.0))
    tl.store(push_ptr + at, tl.where(inside, 0.0, total))
    tl.store(vector_ptr + at * DIM + d, vector, mask=d < DIM)
