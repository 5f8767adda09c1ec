"""Operations that training, evaluation and export share."""

import pytest
import torch
from torch import nn

from facescale.ops import StochasticRounding, embed_views, evaluating, fuse_views, normalise

CPU = torch.device("cpu")


def test_pixels_become_numbers_around_zero_in_channels_last_memory() -> None:
    images_BHW3 = torch.tensor([0, 255, 51], dtype=torch.uint8).expand(2, 4, 4, 3).contiguous()
    before = images_BHW3.clone()
    x = normalise(images_BHW3)
    assert x.shape == (2, 3, 4, 4)
    assert x.is_contiguous(memory_format=torch.channels_last)
    assert x[0, :, 0, 0].tolist() == pytest.approx([-1, 1, -0.6])
    assert normalise(images_BHW3, 0, 255)[0, :, 0, 0].tolist() == pytest.approx([0, 1, 0.2])
    assert torch.equal(images_BHW3, before)


def test_float_pixels_are_left_as_they_are() -> None:
    images_BHW3 = torch.full((1, 2, 2, 3), 255.0)
    normalise(images_BHW3)
    assert (images_BHW3 == 255).all()


@pytest.mark.parametrize("axis", [2, -1])
def test_the_mirrored_view_is_added_where_it_is_asked_for(axis: int) -> None:
    images = torch.arange(24.0).view(2, 3, 4, 1) if axis == 2 else torch.arange(24.0).view(2, 1, 3, 4)
    weight = torch.arange(12.0)

    def embed(x: torch.Tensor) -> torch.Tensor:
        return x.flatten(1) * weight

    plain, mirrored = embed_views(embed, images, flip=True, axis=axis)
    assert torch.equal(plain, embed(images))
    assert torch.equal(mirrored, embed(images.flip(axis)))
    assert torch.equal(fuse_views([plain, mirrored]), plain + mirrored)
    (only,) = embed_views(embed, images, flip=False, axis=axis)
    assert torch.equal(fuse_views([only]), plain)


def test_a_network_is_evaluated_without_gradient_and_gets_its_modes_back() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout())
    net[1].eval()
    with (
        pytest.raises(RuntimeError, match="on purpose"),
        evaluating(net, CPU, "bf16"),
    ):
        assert not any(part.training for part in net.modules())
        out = net(torch.ones(1, 2))
        assert out.dtype == torch.bfloat16 and not out.requires_grad
        raise RuntimeError("on purpose")
    assert [part.training for part in net.modules()] == [True, True, False]
    with evaluating(net, CPU, "fp32"):
        assert net(torch.ones(1, 2)).dtype == torch.float32


def rounded(seed: int, step: int) -> torch.Tensor:
    rounding = StochasticRounding(CPU, seed)
    rounding.seek(step)
    return rounding.round(torch.full((64,), 1.0 + 2**-9), torch.bfloat16)


def test_rounding_depends_on_seed_and_step_alone() -> None:
    assert torch.equal(rounded(3, 7), rounded(3, 7))
    assert not torch.equal(rounded(3, 7), rounded(3, 8))
    assert not torch.equal(rounded(3, 7), rounded(4, 7))


def test_the_stream_is_the_same_on_every_python() -> None:
    rounding = StochasticRounding(CPU, 3)
    rounding.seek(7)
    assert rounding._windows.randrange(10**9) == 815146846


def test_rounding_is_right_on_average() -> None:
    rounding = StochasticRounding(CPU, 0)
    value = torch.full((100_000,), 1.0 + 2**-9)  # a quarter of the way to the next bfloat16
    assert abs(rounding.round(value, torch.bfloat16).double().mean() - (1 + 2**-9)) < 1e-4
    assert set(rounding.round(value, torch.bfloat16).tolist()) == {1.0, 1.0 + 2**-7}
