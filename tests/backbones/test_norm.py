"""Batch norm and PReLU in compiled loops, against torch's in float64."""

import copy
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from facescale import backbones, kernels
from facescale.backbones import norm
from facescale.backbones.layers import PReLU
from facescale.backbones.norm import BatchNorm2d, Chain, shapes_only
from facescale.bench.plain import plain_layers
from tests.compiled import needs_numba

pytestmark = needs_numba


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def images(*shape: int, mean: float = 0.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator) + mean
    return x.contiguous(memory_format=torch.channels_last)


def chain(channels: int, slopes: int | None, **options: float | None) -> Chain:
    """Norm (and PReLU) whose parameters and statistics are not those of a new layer."""
    generator = torch.Generator().manual_seed(1)
    layers: list[nn.Module] = [BatchNorm2d(channels, **options)]  # type: ignore[arg-type]
    if slopes is not None:
        layers.append(PReLU(slopes))
    net = Chain(*layers)
    for x in (*net.parameters(), *(b for b in net.buffers() if b.is_floating_point())):
        x.data.uniform_(0.2, 1.5, generator=generator)
    return net


def loops_run(net: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many batch norms the compiled loops do."""
    calls = []
    before = norm._normalised
    monkeypatch.setattr(norm, "_normalised", lambda *a: calls.append(1) or before(*a))
    net(x)
    return len(calls)


def close(ours: Tensor | None, wanted: Tensor | None, tolerance: float = 5e-5) -> None:
    """The distance is small against the length: a number next to the corner of PReLU may go either way."""
    assert ours is not None and wanted is not None and ours.shape == wanted.shape
    assert (ours.double() - wanted).norm() <= tolerance * wanted.norm() + 1e-12


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("slopes", [None, 1, 24])
@pytest.mark.parametrize("shape", [(1, 24, 1, 2), (3, 24, 5, 7), (20, 24, 33, 31)])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_numbers_and_gradients_are_torchs(
    shape: tuple[int, ...], slopes: int | None, training: bool, momentum: float | None
) -> None:
    net = chain(shape[1], slopes, momentum=momentum).train(training)
    reference = plain_layers(copy.deepcopy(net)).double()
    x = images(*shape, mean=0.3).requires_grad_()
    x64 = x.detach().double().requires_grad_()
    for repeat in range(2):
        y, y64 = net(x), reference(x64)
        close(y, y64.detach())
        along = images(*shape, mean=0.5, seed=2 + repeat)
        y.backward(along)
        y64.backward(along.double())
    close(x.grad, x64.grad, 1e-3)
    for (name, ours), (_, theirs) in zip(net.named_parameters(), reference.named_parameters(), strict=True):
        assert ours.grad is not None and ours.grad.shape == ours.shape, name
        close(ours.grad, theirs.grad)
    for ours, theirs in zip(net.buffers(), reference.buffers(), strict=True):
        close(ours, theirs.double())


def test_a_mean_far_from_zero_loses_no_digits() -> None:
    """Variance as the difference of two sums would be wrong in its second digit here."""
    net, x = chain(8, 8).train(), images(16, 8, 24, 24, mean=1000.0)
    reference = plain_layers(copy.deepcopy(net)).double()
    close(net(x).detach(), reference(x.double()).detach(), 1e-4)  # x itself has steps of 6e-5
    close(net[0].running_var, reference[0].running_var)


def test_threads_do_not_change_a_bit() -> None:
    results = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        net, x = chain(32, 32).train(), images(40, 32, 28, 28).requires_grad_()
        y = net(x)
        y.backward(images(40, 32, 28, 28, mean=0.1))
        results.append([y.detach(), x.grad, *(p.grad for p in net.parameters()), *net.buffers()])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_does_not_depend_on_the_rest_of_the_batch(mode: type) -> None:
    net = backbones.build("mbf_s", 16, input_size=48).eval().to(memory_format=torch.channels_last)
    x = images(12, 3, 48, 48)
    with mode():
        whole = net(x)
        close(whole, plain_layers(copy.deepcopy(net)).double()(x.double()))
        torch.testing.assert_close(torch.cat([net(x[:5]), net(x[5:])]), whole, rtol=1e-5, atol=1e-6)


def test_fixed_parameters_and_inputs_get_no_gradient() -> None:
    net = chain(8, 8).train()
    net[0].requires_grad_(False)
    x = images(4, 8, 6, 6)
    net(x).sum().backward()
    assert x.grad is None and net[0].weight.grad is None and net[1].weight.grad is not None


def test_what_the_loops_cannot_do_is_left_to_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = chain(8, 8).train(), images(4, 8, 6, 6)
    assert loops_run(net, x, monkeypatch) == 1
    assert loops_run(net, x.contiguous(), monkeypatch) == 0
    assert loops_run(net.double(), x.double(), monkeypatch) == 0
    assert loops_run(net.float(), x, monkeypatch) == 1
    assert loops_run(plain_layers(copy.deepcopy(net)), x, monkeypatch) == 0
    monkeypatch.setattr(kernels, "loops", lambda name: None)
    assert loops_run(net, x, monkeypatch) == 0


@pytest.mark.parametrize(
    "name", ["mbf_s", "r18", "ffc_mobile", pytest.param("ir_se50", marks=pytest.mark.slow)]
)
def test_networks_train_as_with_torchs_layers(name: str) -> None:
    options = {} if name.startswith(("mbf", "ffc")) else {"dropout": 0.0}
    torch.manual_seed(0)
    net = backbones.build(name, 16, input_size=48, **options).train().to(memory_format=torch.channels_last)
    reference = plain_layers(copy.deepcopy(net)).double()
    x = images(6, 3, 48, 48)
    y, y64 = net(x), reference(x.double())
    along = torch.randn(y.shape)
    (y * along).sum().backward()
    (y64 * along.double()).sum().backward()
    close(y.detach(), y64.detach(), 1e-3)
    pairs = list(zip(net.named_parameters(), reference.named_parameters(), strict=True))
    longest = max(float(theirs.grad.norm()) for _, (_, theirs) in pairs if theirs.grad is not None)
    for (key, ours), (_, theirs) in pairs:
        if ours.requires_grad:  # that of a bias before another norm is 0
            assert ours.grad is not None and theirs.grad is not None, key
            error = (ours.grad.double() - theirs.grad).norm()
            assert error < 0.03 * theirs.grad.norm() + 1e-5 * longest, key


def kept_bytes(net: nn.Module, x: Tensor) -> int:
    kept: dict[int, Tensor] = {}
    own = {p.data_ptr() for p in net.parameters()} if x.device.type == "cpu" else set()
    own_meta = {p.untyped_storage()._cdata for p in net.parameters()}

    def count(t: Tensor) -> Tensor:
        if t.data_ptr() not in own and t.untyped_storage()._cdata not in own_meta:
            kept[t.untyped_storage()._cdata] = t
        return t

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        y = net(x)
    del y
    return sum(t.untyped_storage().nbytes() for t in kept.values() if t.dim() == 4)


def test_a_plan_counts_what_the_loops_keep() -> None:
    net = backbones.build("mbf_s", 16, input_size=56).train().to(memory_format=torch.channels_last)
    kept = kept_bytes(net, images(8, 3, 56, 56))
    meta = copy.deepcopy(net).to("meta")
    x = torch.empty(8, 3, 56, 56, device="meta")
    torchs = kept_bytes(meta, x)
    with shapes_only("cpu"):
        counted = kept_bytes(meta, x)
    with shapes_only("cuda"):
        assert abs(kept_bytes(meta, x) / torchs - 1) < 0.01
    assert counted < 0.75 * torchs
    assert abs(counted / kept - 1) < 0.02
