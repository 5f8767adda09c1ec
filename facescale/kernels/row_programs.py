"""What each program of the kernels of ``unit_rows`` does; importing this needs triton.

A program takes one row of DIM numbers; WIDE is the power of 2 that they fit into.
"""

import triton
import triton.language as tl

TINY = tl.constexpr(1e-12)  # least length that is divided by, as in ``ops.unit``


@triton.jit
def unit_forward(x_ptr, e_ptr, norm_ptr, DIM: tl.constexpr, WIDE: tl.constexpr):
    """A row of length 1, and its length before."""
    b, d = tl.program_id(0).to(tl.int64), tl.arange(0, WIDE)
    x = tl.load(x_ptr + b * DIM + d, mask=d < DIM, other=0.0)
    norm = tl.sqrt(tl.sum(x * x, 0))
    tl.store(e_ptr + b * DIM + d, x / tl.maximum(norm, TINY), mask=d < DIM)
    tl.store(norm_ptr + b, norm)


@triton.jit
def unit_backward(
    e_ptr,
    norm_ptr,
    grad_e_ptr,
    grad_norm_ptr,
    out_ptr,
    HAS_NORM: tl.constexpr,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The gradient of the row from those of both results."""
    b, d = tl.program_id(0).to(tl.int64), tl.arange(0, WIDE)
    e = tl.load(e_ptr + b * DIM + d, mask=d < DIM, other=0.0)
    grad = tl.load(grad_e_ptr + b * DIM + d, mask=d < DIM, other=0.0)
    out = (grad - e * tl.sum(e * grad, 0)) / tl.maximum(tl.load(norm_ptr + b), TINY)
    if HAS_NORM:
        out += e * tl.load(grad_norm_ptr + b)
    tl.store(out_ptr + b * DIM + d, out, mask=d < DIM)


@triton.jit
def attend(
    q_ptr,
    k_ptr,
    centre_ptr,
    most_ptr,
    rows,
    temperature,
    VIEWS: tl.constexpr,
    UNIT_KEYS: tl.constexpr,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
):
    """The unit sum of an identity's keys by attention, and the largest weight."""
    b, d = tl.program_id(0).to(tl.int64), tl.arange(0, WIDE)
    q = tl.load(q_ptr + b * DIM + d, mask=d < DIM, other=0.0)
    q = q / tl.maximum(tl.sqrt(tl.sum(q * q, 0)), TINY)
    largest = tl.sum(q * 0.0, 0) - 1e30
    total = tl.sum(q * 0.0, 0)
    centre = tl.zeros((WIDE,), tl.float32)
    for view in range(VIEWS):
        k = tl.load(k_ptr + (view * rows + b) * DIM + d, mask=d < DIM, other=0.0)
        unit = k / tl.maximum(tl.sqrt(tl.sum(k * k, 0)), TINY)
        score = tl.sum(q * unit, 0) / temperature
        larger = tl.maximum(largest, score)
        shrink, weight = tl.exp(largest - larger), tl.exp(score - larger)
        if UNIT_KEYS:
            k = unit
        centre = centre * shrink + weight * k
        total = total * shrink + weight
        largest = larger
    centre = centre / total
    centre = centre / tl.maximum(tl.sqrt(tl.sum(centre * centre, 0)), TINY)
    tl.store(centre_ptr + b * DIM + d, centre, mask=d < DIM)
    tl.store(most_ptr + b, 1.0 / total)
