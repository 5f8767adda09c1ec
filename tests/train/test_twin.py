"""The twin follows the backbone by moving average, without gradient, with batch norm by a stated rule."""

import copy

import pytest
import torch
from torch import Tensor, nn

from facescale.distributed import Dist
from facescale.train.twin import Twin
from tests.distributed.spawn import run_processes


def backbone(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 5)
    )


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_parameters_move_by_the_moving_average() -> None:
    twin, net = Twin(backbone(), momentum=0.9), backbone(1)
    before = [p.clone() for p in twin.parameters()]
    twin.update(net)
    for old, new, followed in zip(before, twin.parameters(), net.parameters(), strict=True):
        assert torch.allclose(new, 0.9 * old + 0.1 * followed)


def test_it_is_a_copy_without_gradient() -> None:
    net = backbone()
    twin = Twin(net)
    with torch.no_grad():
        net[0].weight += 1
    assert not torch.equal(twin.net[0].weight, net[0].weight)
    assert not any(p.requires_grad for p in twin.parameters())
    assert not twin(images(4)).requires_grad


@pytest.mark.parametrize("rule", ["copy", "average"])
def test_running_statistics_follow_the_backbone(rule: str) -> None:
    twin, net = Twin(backbone(), momentum=0.9, buffers=rule), backbone(1)
    net(images(6))
    twin.update(net)
    mean, now = twin.net[1].running_mean, net[1].running_mean
    assert torch.allclose(mean, now if rule == "copy" else 0.1 * now)
    assert twin.net[1].num_batches_tracked == 1
    alone, together = twin(images(6)[:1]), twin(images(6))[:1]
    assert torch.allclose(alone, together, atol=1e-6)  # no image depends on the others
    assert torch.equal(twin.net[1].running_mean, mean)


def test_own_statistics_are_those_of_the_batch() -> None:
    twin = Twin(backbone())
    twin.update(backbone(1))
    x = images(6)
    net = copy.deepcopy(twin.net)
    net[2].eval()  # dropout never acts in the twin
    net[1].train()
    assert torch.allclose(twin(x), net(x))
    assert torch.allclose(twin.net[1].running_mean, net[1].running_mean)
    twin.eval()
    net.eval()
    assert torch.allclose(twin(x), net(x))


def test_momentum_schedules() -> None:
    warm = Twin(backbone(), momentum=0.99, schedule="warmup")
    assert warm.momentum_at(0.5) == pytest.approx(0.1)
    warm.num_updates = 90
    assert warm.momentum_at(0.5) == pytest.approx(91 / 100)
    warm.num_updates = 10**6
    assert warm.momentum_at(0.5) == 0.99
    cosine = Twin(backbone(), momentum=0.9, schedule="cosine")
    assert [cosine.momentum_at(p) for p in (0, 0.5, 1)] == pytest.approx([0.9, 0.95, 1.0])
    assert Twin(backbone(), momentum=0.9).momentum_at(0.7) == 0.9


def test_half_precision_computes_with_float32_weights() -> None:
    twin = Twin(backbone(), momentum=0.999)
    exact = Twin(backbone(), momentum=0.999)
    for one in (twin, exact):
        one.update(backbone(1))
    assert torch.equal(twin.net[0].weight, exact.net[0].weight)
    with torch.autocast("cpu", torch.bfloat16):
        half = twin(images(8))
    full = exact(images(8))
    assert half.dtype is torch.float32
    assert 0 < (half - full).abs().max() < 0.05


def test_state_goes_on_bit_for_bit() -> None:
    twin, other = Twin(backbone(), schedule="warmup"), Twin(backbone(2), schedule="warmup")
    for seed in range(3):
        twin.update(backbone(seed))
        twin(images(4, seed))
    other.load_state_dict(twin.state_dict())
    for one in (twin, other):
        one.update(backbone(7))
    assert torch.equal(twin(images(4)), other(images(4)))
    assert other.num_updates == 4


def _check_processes(dist: Dist) -> None:
    x = images(6)
    part = slice(dist.rank * 3, dist.rank * 3 + 3)
    together = Twin(backbone(), dist=dist)
    for _ in range(3):  # the exchange is another one each time
        together(x[part])
    mine = together(x[part])
    assert mine.shape == (3, 5)
    apart = Twin(backbone())
    assert not torch.allclose(mine, apart(x[part]), atol=1e-4)  # statistics of other images
    frozen = Twin(backbone(), dist=dist, buffers="copy")
    alone = Twin(backbone(), buffers="copy")
    assert torch.allclose(frozen(x[part]), alone(x)[part], atol=1e-6)
    # Whatever the order: each image comes back to its place.
    together.net[1] = nn.Identity()
    alone.net[1] = nn.Identity()
    assert torch.allclose(together(x[part]), alone(x)[part], atol=1e-6)


def test_processes_exchange_images_and_get_their_own_back() -> None:
    run_processes(2, _check_processes)


def test_wrong_options_are_told() -> None:
    with pytest.raises(ValueError, match="momentum is 1; it lies from 0"):
        Twin(backbone(), momentum=1)
    with pytest.raises(ValueError, match="schedule is 'linear'; it must be constant, warmup or cosine"):
        Twin(backbone(), schedule="linear")
    with pytest.raises(ValueError, match="buffers are 'none'; they must be own, copy or average"):
        Twin(backbone(), buffers="none")
