"""Layers with torch's parameters and numbers, in forms that a CPU trains several times faster."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight


def plain_ops_needed() -> bool:
    """True while a graph is captured, which may contain torch's built-in operators only."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    return bool(tracing) or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()


def full_precision(x: Tensor) -> AbstractContextManager[Any]:
    """Context without autocast, for layers where half precision costs digits."""
    device = x.device.type
    # torch before 2.13 cannot compile torch.amp.is_autocast_available(device)
    if device != "meta" and torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def in_full_precision(module: nn.Module, x: Tensor) -> Tensor:
    """Apply ``module`` outside autocast, in the type of its parameters if it has any."""
    with full_precision(x):
        weights = list(module.parameters())  # torch.compile of torch 2.8 cannot follow next(..., default)
        return module(x.to(weights[0].dtype) if weights else x)  # type: ignore[no-any-return]


class _PReLUFunction(torch.autograd.Function):
    """PReLU whose gradient is made of vectorised operators.

    torch's gradient kernel runs one element at a time on a CPU (no vector code) and writes the weight
    gradient as a map of the input's size before summing it: a third of a MobileFaceNet training step.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.prelu(x, weight.to(x.dtype))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        rows = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        if rows:
            grad_y = grad_y.contiguous(memory_format=torch.channels_last)
        # Hard tanh passes a gradient between its limits, so this is grad_y where x <= 0 and 0 elsewhere.
        smallest = torch.finfo(x.dtype).tiny
        negative = torch.ops.aten.hardtanh_backward(grad_y, x, -math.inf, smallest)
        slope_less_1 = (weight - 1).to(x.dtype).view(-1, *[1] * (x.dim() - 2))
        grad_x = torch.addcmul(grad_y, negative, slope_less_1)
        negative.mul_(x)
        if rows:
            # Memory is (B*H*W, C). A product with ones is twice as fast as sum(), and adds in fp32 as well.
            negative_RC = negative.permute(0, 2, 3, 1).flatten(0, 2)
            grad_weight = (negative_RC.new_ones(1, len(negative_RC)) @ negative_RC)[0]
        else:
            grad_weight = negative.sum([d for d in range(x.dim()) if d != 1])
        return grad_x, grad_weight.to(weight.dtype)


class PReLU(nn.PReLU):
    """``nn.PReLU`` with one slope per channel: same state dict, same numbers, a faster gradient on CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape: x where positive, slope * x elsewhere."""
        if x.device.type != "cpu" or not torch.is_grad_enabled() or plain_ops_needed():
            return F.prelu(x, self.weight.to(x.dtype))
        return _PReLUFunction.apply(x, self.weight)  # type: ignore[no-untyped-call,no-any-return]


class _DepthwiseStrideFunction(torch.autograd.Function):
    """Depthwise convolution with a stride, whose input gradient is a depthwise convolution without one.

    oneDNN has no vector code for the input gradient with a stride in bf16: 110 ms at batch 32, 128 channels,
    56 x 56 pixels on one core, against 10 ms for zeros between the gradient's pixels and a plain convolution.
    In fp32 it has, and torch's own gradient takes 0.4 to 0.75 of the time of this one (AVX2).
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.padding = stride, padding
        return F.conv2d(x, weight, None, stride, padding, groups=x.shape[1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, weight = ctx.saved_tensors
        size = weight.shape[2]
        spread = torch.zeros_like(x)
        spread[:, :, :: ctx.stride, :: ctx.stride] = grad_y
        grad_x = F.conv2d(spread, weight.flip(2, 3), padding=size - 1 - ctx.padding, groups=x.shape[1])
        grad_weight = conv2d_weight(x, list(weight.shape), grad_y, ctx.stride, ctx.padding, groups=x.shape[1])
        return grad_x, grad_weight, None, None


def _product_dtype(x: Tensor) -> torch.dtype:
    """Type in which a convolution of ``x`` on a CPU computes."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype


class GroupedConv2d(nn.Conv2d):
    """``nn.Conv2d`` with groups: same state dict, same numbers, without oneDNN's slow cases on a CPU.

    Measured on a CPU with AMX (batch 32, one core), forward and both gradients in bf16:

    * 2 channels per group (128 channels, 56 x 56): 950 ms: the weight gradient has no vector code. The
      same convolution with groups of 32 channels, its weight zero outside the original groups: 45 ms.
      In fp32 (AVX2) groups of 8 channels are best: 165 ms, with 32 channels 510 ms, as it is 248 ms.
    * depthwise with stride 2 (128 channels, 56 x 56): 120 ms; see ``_DepthwiseStrideFunction``: 20 ms.
    * depthwise over the whole 7 x 7 map (512 channels): 16 ms, as a product and a sum 2 ms.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, out_channels, H', W')."""
        if x.device.type != "cpu" or plain_ops_needed():
            return super().forward(x)
        per_group = self.in_channels // self.groups
        wide = 32 if _product_dtype(x).itemsize == 2 else 8
        fits = wide % per_group == 0 and self.in_channels % wide == 0
        if 1 < per_group < wide and self.in_channels == self.out_channels and fits:
            weight, groups = self._widened(wide // per_group), self.in_channels // wide
            return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, groups)
        if self.groups == self.in_channels == self.out_channels and torch.is_grad_enabled():
            return self._depthwise(x)
        return super().forward(x)

    def _widened(self, merged: int) -> Tensor:
        """Weight of the same convolution with ``merged`` neighbouring groups in one."""
        out, inner, *kernel = self.weight.shape
        blocks = self.weight.view(-1, merged, out // self.groups, 1, inner, *kernel)
        own_group = torch.eye(merged, dtype=blocks.dtype).view(1, merged, 1, merged, 1, 1, 1)
        return (blocks * own_group).reshape(out, merged * inner, *kernel)

    def _depthwise(self, x: Tensor) -> Tensor:
        stride, padding = self.stride[0], int(self.padding[0])
        if x.shape[2:] == self.weight.shape[2:] and padding == 0:
            return (x * self.weight.squeeze(1)).sum((2, 3), keepdim=True)
        weight = self.weight.to(_product_dtype(x))
        if stride > 1 and weight.dtype is not torch.float32:
            apply = _DepthwiseStrideFunction.apply
            return apply(x.to(weight.dtype), weight, stride, padding)  # type: ignore[no-untyped-call,no-any-return]
        return super().forward(x)
