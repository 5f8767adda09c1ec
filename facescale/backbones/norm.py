"""Batch norm, alone or before PReLU, in few passes over memory where a CPU computes in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from facescale import kernels
from facescale.backbones.layers import PReLU, plain_ops_needed
from facescale.kernels.parts import in_parts

# R rows (batch, height, width), C channels, K blocks of rows

_BLOCK = 65_536  # numbers in a block: it stays in a core's cache while it is read twice
_ONE_THREAD = 1 << 20  # so few numbers are not worth waking threads

_counted_for: ContextVar[str | None] = ContextVar("_counted_for", default=None)


@contextmanager
def shapes_only(device: str) -> Iterator[None]:
    """Let batch norms on the meta device only keep, for the backward pass, what they would on ``device``."""
    token = _counted_for.set(device)
    try:
        yield
    finally:
        _counted_for.reset(token)


class BatchNorm2d(nn.BatchNorm2d):
    """``nn.BatchNorm2d``: same state dict, same numbers up to rounding, less time on a CPU.

    Memory is passed over twice in each direction instead of three times, and sums over pixels are made of
    blocks, in float64: they do not depend on the number of threads.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        if x.device.type == "meta" and _counted_for.get():
            return _KeepsInput.apply(x)  # type: ignore[no-untyped-call,no-any-return]
        loops = _loops_for(self, x)
        return super().forward(x) if loops is None else _normalised(self, None, x, loops)


class Chain(nn.Sequential):
    """``nn.Sequential`` that does a batch norm and the PReLU after it at once."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply all layers, first to last."""
        layers = list(self)
        while layers:
            layer = layers.pop(0)
            after = layers[0] if layers else None
            if isinstance(layer, BatchNorm2d) and isinstance(after, PReLU):
                x = norm_prelu(layer, after, x)
                layers.pop(0)  # torch.compile of torch 2.8 cannot follow del
            else:
                x = layer(x)
        return x


def norm_prelu(norm: nn.Module, prelu: PReLU, x: Tensor) -> Tensor:
    """``prelu(norm(x))``.

    Compiled loops do both at once where numba is installed, for float32 images in CPU memory whose channels
    lie together. They keep ``x`` only, where torch's layers keep the input of each.
    """
    loops = _loops_for(norm, x) if isinstance(norm, BatchNorm2d) else None
    if loops is None:
        return prelu(norm(x))  # type: ignore[no-any-return]
    assert isinstance(norm, BatchNorm2d)
    return _normalised(norm, prelu, x, loops)


def _normalised(norm: BatchNorm2d, prelu: PReLU | None, x: Tensor, loops: ModuleType) -> Tensor:
    if x.device.type == "meta":
        return _KeepsInput.apply(x)  # type: ignore[no-untyped-call,no-any-return]
    mean, variance = _statistics(norm, loops, x)
    slope = None if prelu is None else prelu.weight
    return _NormPReLU.apply(  # type: ignore[no-untyped-call,no-any-return]
        x, norm.weight, norm.bias, slope, mean, variance, norm.eps, norm.training, loops
    )


def _loops_for(norm: BatchNorm2d, x: Tensor) -> ModuleType | None:
    """The compiled loops if they can do this batch norm on this input, else None."""
    counted = x.device.type == "meta" and _counted_for.get() == "cpu"
    suits = (
        (counted or (x.device.type == "cpu" and x.is_contiguous(memory_format=torch.channels_last)))
        and x.dtype is torch.float32
        and x.numel() > x.shape[1]
        and norm.affine
        and norm.running_mean is not None
        and norm.weight.dtype is torch.float32
        and not plain_ops_needed()
    )
    return kernels.loops("norm_loops") if suits else None


def _rows(x: Tensor) -> NDArray[np.float32]:
    """The array (R, C) behind a tensor (B, C, H, W) in channels_last."""
    return x.detach().permute(0, 2, 3, 1).reshape(-1, x.shape[1]).numpy()


def _parts(x_RC: NDArray[np.float32]) -> int:
    return 1 if x_RC.size < _ONE_THREAD else 0


def _block_rows(num_channels: int) -> int:
    return max(16, _BLOCK // num_channels)


def _statistics(
    norm: BatchNorm2d, loops: ModuleType, x: Tensor
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and variance to normalise by (C,); in training those of the batch, which move the running ones."""
    assert norm.running_mean is not None and norm.running_var is not None
    if not norm.training:
        return norm.running_mean.double().numpy(), norm.running_var.double().numpy()
    x_RC = _rows(x)
    mean, variance = _moments(loops, x_RC)
    factor = norm.momentum
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
        if factor is None:
            factor = 1 / float(norm.num_batches_tracked)
    unbiased = variance * (len(x_RC) / (len(x_RC) - 1))
    # As arrays: torch's batch norm does not count this as a change of what a gradient needs, either.
    for running, now in ((norm.running_mean, mean), (norm.running_var, unbiased)):
        array = running.numpy()
        array += (factor or 0.0) * (now - array)
    return mean, variance


def _moments(loops: ModuleType, x_RC: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and (biased) variance of every channel, from those of blocks (Chan et al. 1979)."""
    num_rows, num_channels = x_RC.shape
    block = _block_rows(num_channels)
    mean_KC = np.empty((-(-num_rows // block), num_channels), np.float32)
    spread_KC = np.empty_like(mean_KC)

    def run(first: int, last: int) -> None:
        loops.block_statistics(x_RC, block, first, last, mean_KC, spread_KC)

    in_parts(run, len(mean_KC), _parts(x_RC))
    share_K = np.full(len(mean_KC), block / num_rows)
    share_K[-1] = 1 - share_K[:-1].sum()
    mean_C = share_K @ mean_KC.astype(np.float64)
    between_C = share_K @ (mean_KC - mean_C) ** 2
    return mean_C, spread_KC.sum(0, dtype=np.float64) / num_rows + between_C


class _NormPReLU(torch.autograd.Function):
    """y = PReLU(gain x + bias) and its gradient, where gain and bias hold a batch norm.

    With e = x - mean and z before the PReLU, dL/dx = gain (dL/dz - mean(dL/dz) - e mean(dL/dz e) / variance)
    (Ioffe and Szegedy, arXiv 1502.03167, section 3); the last two vanish for running statistics.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        slope: Tensor | None,
        mean: NDArray[np.float64],
        variance: NDArray[np.float64],
        eps: float,
        of_batch: bool,
        loops: ModuleType,
    ) -> Tensor:
        rate = 1 / np.sqrt(variance + eps)
        gain = weight.detach().numpy() * rate
        shift = bias.detach().numpy() - mean * gain
        slopes = np.ones_like(gain) if slope is None else slope.detach().numpy()
        wide = slopes if len(slopes) == len(gain) else np.repeat(slopes, len(gain))
        ctx.coefficients = tuple(
            np.ascontiguousarray(line, dtype=np.float32) for line in (mean, gain, shift, wide)
        )
        ctx.mean, ctx.rate, ctx.of_batch, ctx.loops = mean, rate, of_batch, loops
        ctx.num_slopes = 0 if slope is None else len(slope)
        ctx.save_for_backward(x)
        y = torch.empty_like(x)
        x_RC, y_RC = _rows(x), _rows(y)

        def run(start: int, stop: int) -> None:
            loops.normalise(x_RC, *ctx.coefficients[1:], start, stop, y_RC)

        in_parts(run, len(x_RC), _parts(x_RC))
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        x_RC = _rows(x)
        grad_RC = _rows(grad_y.contiguous(memory_format=torch.channels_last))
        num_rows, num_channels = x_RC.shape
        block = _block_rows(num_channels)
        sums_K3C = np.empty((-(-num_rows // block), 3, num_channels), np.float32)

        def sums(first: int, last: int) -> None:
            ctx.loops.gradient_sums(x_RC, grad_RC, *ctx.coefficients, block, first, last, sums_K3C)

        in_parts(sums, len(sums_K3C), _parts(x_RC))
        of_z, along_x, of_slope = sums_K3C.sum(0, dtype=np.float64)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = torch.empty_like(x)
            out_RC = _rows(grad_x)
            gain = ctx.coefficients[1].astype(np.float64) * (ctx.of_batch / num_rows)
            along = (-gain * ctx.rate**2 * along_x).astype(np.float32)
            shift = (-gain * of_z).astype(np.float32)

            def run(start: int, stop: int) -> None:
                ctx.loops.input_gradient(x_RC, grad_RC, *ctx.coefficients, along, shift, start, stop, out_RC)

            in_parts(run, num_rows, _parts(x_RC))
        slopes = of_slope.sum(keepdims=True) if ctx.num_slopes == 1 else of_slope
        of_parameters = (ctx.rate * along_x, of_z, slopes if ctx.num_slopes else None)
        grads = (None if g is None else torch.from_numpy(g).float() for g in of_parameters)
        return grad_x, *grads, None, None, None, None, None


class _KeepsInput(torch.autograd.Function):
    """The shapes of a batch norm without its arithmetic, which torch does slowly on the meta device."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor) -> Tensor:
        return torch.empty_like(grad_y)
