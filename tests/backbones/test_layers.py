"""The fast layers against torch's own."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from facescale.backbones.layers import GroupedConv2d, PReLU

BATCHES = {
    "contiguous": torch.contiguous_format,
    "channels_last": torch.channels_last,
}


def gradients(layer: nn.Module, x: Tensor, autocast: bool) -> list[Tensor]:
    """Output, input gradient and parameter gradients for one fixed direction."""
    layer.zero_grad()
    x = x.clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        y = layer(x)
    direction = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
    y.backward(direction.to(y.dtype))
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]


def torch_version(layer: nn.Module) -> nn.Module:
    twin = copy.deepcopy(layer)
    twin.__class__ = nn.PReLU if isinstance(layer, PReLU) else nn.Conv2d
    return twin


@pytest.mark.parametrize("memory", BATCHES)
@pytest.mark.parametrize("shape", [(3, 5, 4, 4), (130, 64, 6, 6), (7, 5)])
def test_prelu_and_its_gradients_are_torchs(memory: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    layer = PReLU(shape[1]).double()
    nn.init.uniform_(layer.weight, -0.5, 1.5)
    x = torch.randn(shape, dtype=torch.float64)
    x[0, 1] = 0.0  # where the two sides meet, torch takes the slope
    if x.dim() == 4:
        x = x.contiguous(memory_format=BATCHES[memory])
    for ours, theirs in zip(
        gradients(layer, x, False), gradients(torch_version(layer), x, False), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.stride() == theirs.stride()


def test_prelu_in_bf16_has_the_slope_gradient_of_fp32() -> None:
    torch.manual_seed(0)
    layer = PReLU(64)
    x = torch.randn(16, 64, 28, 28).bfloat16().contiguous(memory_format=torch.channels_last)
    y, grad_x, grad_weight = gradients(layer, x, True)
    exact = gradients(torch_version(layer), x.float(), False)
    assert y.dtype == grad_x.dtype == torch.bfloat16
    assert grad_weight.dtype == torch.float32
    assert (grad_weight - exact[2]).norm() < 0.01 * exact[2].norm()


def test_prelu_keeps_a_nan_visible() -> None:
    x = torch.full((1, 2, 1, 1), math.nan)
    y, grad_x, grad_weight = gradients(PReLU(2), x, False)
    assert y.isnan().all()
    assert grad_weight.isnan().all() or grad_x.isnan().all()


CONVOLUTIONS = {
    "two channels a group": GroupedConv2d(64, 64, 3, 1, 1, groups=32, bias=False),
    "four channels a group, biased": GroupedConv2d(64, 64, 3, 2, 1, groups=16),
    "three channels a group": GroupedConv2d(96, 96, 3, 1, 1, groups=32, bias=False),
    "depthwise": GroupedConv2d(32, 32, 3, 1, 1, groups=32, bias=False),
    "depthwise with stride": GroupedConv2d(32, 32, 3, 2, 1, groups=32, bias=False),
    "the whole map": GroupedConv2d(32, 32, 7, groups=32, bias=False),
}


@pytest.mark.parametrize("side", [7, 8])
@pytest.mark.parametrize("memory", BATCHES)
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_grouped_convolutions_and_their_gradients_are_torchs(kind: str, memory: str, side: int) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(CONVOLUTIONS[kind]).double()
    x = torch.randn(3, layer.in_channels, side, side, dtype=torch.float64)
    x = x.contiguous(memory_format=BATCHES[memory])
    for ours, theirs in zip(
        gradients(layer, x, False), gradients(torch_version(layer), x, False), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_grouped_convolutions_are_torchs_in_evaluation(kind: str) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(CONVOLUTIONS[kind])
    x = torch.randn(3, layer.in_channels, 8, 8).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch_version(layer)(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_grouped_convolutions_work_in_bf16(kind: str) -> None:
    torch.manual_seed(0)
    layer = copy.deepcopy(CONVOLUTIONS[kind])
    x = torch.randn(3, layer.in_channels, 8, 8).contiguous(memory_format=torch.channels_last)
    theirs = gradients(torch_version(layer), x, False)
    for ours, exact in zip(gradients(layer, x, True), theirs, strict=True):
        assert (ours - exact).norm() < 0.02 * exact.norm()
