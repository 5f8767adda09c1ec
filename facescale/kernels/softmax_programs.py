"""What each program of the kernels of ``class_softmax`` does; importing this needs triton.

Pointers are to contiguous tensors: e (samples, DIM), w and m (rows, DIM). PRODUCTS is the precision of the
factors of products, DOT that in which they are multiplied.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_classes", "batch", "split"])
def compare(
    e_ptr,
    w_ptr,
    more_ptr,
    row_ptr,
    key_ptr,
    own_ptr,
    max_ptr,
    sum_ptr,
    grad_ptr,
    num_classes,
    batch,
    split,
    scale,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    SAMPLES: tl.constexpr,
    CLASSES: tl.constexpr,
    GATHERED: tl.constexpr,
    MORE: tl.constexpr,
    KEYED: tl.constexpr,
    UNIT: tl.constexpr,
    BOUNDED: tl.constexpr,
    PRODUCTS: tl.constexpr,
    DOT: tl.constexpr,
):
    """A part of the classes against some samples; see ``class_softmax.forward``."""
    part, parts = tl.program_id(0), tl.num_programs(0)
    view, views = tl.program_id(2).to(tl.int64), tl.num_programs(2)
    g = tl.program_id(1) * SAMPLES + tl.arange(0, SAMPLES)
    d = tl.arange(0, WIDE)
    here = g < batch
    e_ptr += view * batch * DIM
    own_ptr += view * batch
    row_ptr += view * num_classes
    e = tl.load(e_ptr + g[:, None] * DIM + d[None, :], mask=here[:, None] & (d < DIM)[None, :], other=0.0)
    e = e.to(DOT)
    own = tl.load(own_ptr + g, mask=here, other=-1)
    largest = tl.full((SAMPLES,), -1e30, tl.float32)
    if BOUNDED:
        largest = tl.zeros((SAMPLES,), tl.float32)
    total = tl.zeros((SAMPLES,), tl.float32)
    grad = tl.zeros((SAMPLES, WIDE), tl.float32)
    for start in range(part * CLASSES, num_classes, parts * CLASSES):
        c = start + tl.arange(0, CLASSES)
        inside = c < num_classes
        row = c.to(tl.int64)
        if GATHERED:
            row = tl.load(row_ptr + c, mask=inside, other=0)
        key = c.to(tl.int64)
        if KEYED:
            key = tl.load(key_ptr + c, mask=inside, other=-2)
        if MORE:
            inside = inside & (row >= 0)
            late = (row >= split)[:, None] & (d < DIM)[None, :]
            at = (row - split)[:, None] * DIM + d[None, :]
            others = tl.load(more_ptr + at, mask=late, other=0.0).to(tl.float32)
            mask = (inside & (row < split))[:, None] & (d < DIM)[None, :]
        else:
            mask = inside[:, None] & (d < DIM)[None, :]
        w = tl.load(w_ptr + row[:, None] * DIM + d[None, :], mask=mask, other=0.0).to(tl.float32)
        if MORE:
            w += others
        factor = tl.zeros((CLASSES,), tl.float32) + scale
        if not UNIT:
            factor = scale / tl.maximum(tl.sqrt(tl.sum(w * w, 1)), 1e-12)
        w = w.to(PRODUCTS).to(DOT)
        logit = tl.dot(e, tl.trans(w), input_precision="ieee") * factor[None, :]
        counts = inside[None, :] & (key[None, :] != own[:, None])
        logit = tl.where(counts, logit, -float("inf"))
        if not BOUNDED:
            larger = tl.maximum(largest, tl.max(logit, 1))
            shrink = tl.exp(largest - larger)
            total *= shrink
            grad *= shrink[:, None]
            largest = larger
        weight = tl.exp(logit - largest[:, None])
        total += tl.sum(weight, 1)
        grad += tl.dot((weight * factor[None, :]).to(PRODUCTS).to(DOT), w, input_precision="ieee")
    at = (part * views + view) * batch + g
    tl.store(max_ptr + at, largest, mask=here)
    tl.store(sum_ptr + at, total, mask=here)
    tl.store(grad_ptr + at[:, None] * DIM + d[None, :], grad, mask=here[:, None] & (d < DIM)[None, :])


@triton.jit(do_not_specialize=["parts", "batch"])
def join(
    max_ptr,
    sum_ptr,
    grad_ptr,
    value_ptr,
    out_ptr,
    parts,
    batch,
    DIM: tl.constexpr,
    STEP: tl.constexpr,
    PARTS: tl.constexpr,
):
    """Log-sum-exp of a sample, and some numbers of its gradient; see ``class_softmax.value``."""
    g = tl.program_id(0)
    d = tl.program_id(1) * STEP + tl.arange(0, STEP)
    p = tl.arange(0, PARTS)
    there = p < parts
    at = p * batch + g
    largest = tl.load(max_ptr + at, mask=there, other=-1e30)
    top = tl.max(largest, 0)
    share = tl.where(there, tl.exp(largest - top), 0.0)
    total = tl.sum(tl.load(sum_ptr + at, mask=there, other=0.0) * share, 0)
    mask = there[:, None] & (d < DIM)[None, :]
    grad = tl.load(grad_ptr + at[:, None] * DIM + d[None, :], mask=mask, other=0.0) * share[:, None]
    tl.store(out_ptr + g * DIM + d, tl.sum(grad, 0) / tl.maximum(total, 1.2e-38), mask=d < DIM)
    tl.store(value_ptr + g, top + tl.log(total))  # all programs of a sample write the same


@triton.jit
def _rounded(value, bits, STOCHASTIC: tl.constexpr):
    """float32 whose lower 16 bits are 0, up or down at random, so that bfloat16 takes it as it is."""
    if STOCHASTIC:
        whole = value.to(tl.int32, bitcast=True) + (bits & 0xFFFF)
        value = (whole & -65536).to(tl.float32, bitcast=True)
    return value


@triton.jit(do_not_specialize=["num_classes", "batch", "seed"])
def move_rows(
    e_ptr,
    w_ptr,
    m_ptr,
    row_ptr,
    own_ptr,
    value_ptr,
    grad_value_ptr,
    grad_target_ptr,
    num_classes,
    batch,
    scale,
    decay,
    momentum,
    lr,
    seed,
    DIM: tl.constexpr,
    STEP: tl.constexpr,
    SAMPLES: tl.constexpr,
    CLASSES: tl.constexpr,
    GATHERED: tl.constexpr,
    MOMENTUM: tl.constexpr,
    STOCHASTIC: tl.constexpr,
    PRODUCTS: tl.constexpr,
    DOT: tl.constexpr,
):
    """Some rows against all samples, then their update; see ``class_softmax.move``."""
    c = tl.program_id(0) * CLASSES + tl.arange(0, CLASSES)
    inside = c < num_classes
    row = c.to(tl.int64)
    if GATHERED:
        row = tl.load(row_ptr + c, mask=inside, other=0)
    g = tl.arange(0, SAMPLES)
    here = g < batch
    product = tl.zeros((CLASSES, SAMPLES), tl.float32)
    squares = tl.zeros((CLASSES,), tl.float32)
    for start in range(0, DIM, STEP):
        d = start + tl.arange(0, STEP)
        mask = inside[:, None] & (d < DIM)[None, :]
        w = tl.load(w_ptr + row[:, None] * DIM + d[None, :], mask=mask, other=0.0).to(tl.float32)
        e = tl.load(e_ptr + g[:, None] * DIM + d[None, :], mask=here[:, None] & (d < DIM)[None, :], other=0.0)
        squares += tl.sum(w * w, 1)
        product += tl.dot(w.to(PRODUCTS).to(DOT), tl.trans(e.to(DOT)), input_precision="ieee")
    inverse = 1.0 / tl.maximum(tl.sqrt(squares), 1e-12)
    own = tl.load(own_ptr + g, mask=here, other=-1)
    value = tl.load(value_ptr + g, mask=here, other=float("inf"))
    grad_value = tl.load(grad_value_ptr + g, mask=here, other=0.0)
    grad_target = tl.load(grad_target_ptr + g, mask=here, other=0.0)
    weight = tl.exp(product * (inverse * scale)[:, None] - value[None, :]) * (grad_value * scale)[None, :]
    weight = tl.where(c[:, None] == own[None, :], grad_target[None, :], weight)
    radial = decay - tl.sum(weight * product, 1) * inverse * inverse * inverse
    narrow = (weight * inverse[:, None]).to(PRODUCTS).to(DOT)
    for start in range(0, DIM, STEP):
        d = start + tl.arange(0, STEP)
        mask = inside[:, None] & (d < DIM)[None, :]
        at = row[:, None] * DIM + d[None, :]
        w = tl.load(w_ptr + at, mask=mask, other=0.0).to(tl.float32)
        e = tl.load(e_ptr + g[:, None] * DIM + d[None, :], mask=here[:, None] & (d < DIM)[None, :], other=0.0)
        grad = tl.dot(narrow, e.to(DOT), input_precision="ieee") + radial[:, None] * w
        bits = tl.zeros((CLASSES, STEP), tl.int32)
        if STOCHASTIC:  # a hash of the place and the step's seed: its two halves are as good as random
            mixed = at.to(tl.uint32) * 0x9E3779B1 ^ seed.to(tl.uint32)
            mixed = (mixed ^ (mixed >> 16)) * 0x85EBCA6B
            mixed = (mixed ^ (mixed >> 13)) * 0xC2B2AE35
            bits = (mixed ^ (mixed >> 16)).to(tl.int32, bitcast=True)
        if MOMENTUM:
            grad += momentum * tl.load(m_ptr + at, mask=mask, other=0.0).to(tl.float32)
            kept = _rounded(grad, bits >> 16, STOCHASTIC)
            tl.store(m_ptr + at, kept.to(m_ptr.dtype.element_ty), mask=mask)
        w = _rounded(w - lr * grad, bits, STOCHASTIC)
        tl.store(w_ptr + at, w.to(w_ptr.dtype.element_ty), mask=mask)
