"""The swap test finds the colour order that a network was made for."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from facescale.convert.colour_order import swap_test
from facescale.model_card import Contract


class _FirstChannel(nn.Module):
    """Tells people apart by what it gets as the first colour, and is misled by the third."""

    def forward(self, x: Tensor) -> Tensor:
        small = nn.functional.adaptive_avg_pool2d(x, 4)
        return torch.cat([small[:, 0].flatten(1), 0.1 * small[:, 2].flatten(1)], 1)


class _RedFaces:
    """Six people, each with a pattern in red; green and blue are noise."""

    num_ids = 6

    def __init__(self, per_person: int = 3) -> None:
        self.ids = np.repeat(np.arange(6), per_person)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[np.ndarray[Any, Any], int]:
        person = int(self.ids[index])
        image = np.random.default_rng(1000 + index).integers(0, 256, (4, 4, 3), np.uint8)
        image[..., 0] = np.random.default_rng(person).integers(0, 256, (4, 4), np.uint8)
        return image.repeat(8, 0).repeat(8, 1), person

    def key(self, index: int) -> str:
        return str(index)


@pytest.mark.parametrize(("stated", "verdict"), [("RGB", "right"), ("BGR", "WRONG, name another origin")])
def test_the_better_colour_order_is_found(stated: Any, verdict: str) -> None:
    result = swap_test(_FirstChannel(), Contract(size=32, colour=stated), _RedFaces())
    assert f"the colour order is {verdict} (separation " in result.verdict
    assert result.num_images == 18
    assert max(result.stated, result.swapped) > 3 * min(result.stated, result.swapped)


def test_nothing_is_claimed_where_the_colour_order_makes_no_difference() -> None:
    blind = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Conv2d(3, 1, 1, bias=False), nn.Flatten())
    nn.init.ones_(blind[1].weight)
    assert "do not show which" in swap_test(blind, Contract(size=32), _RedFaces()).verdict


def test_it_needs_several_images_of_several_people() -> None:
    with pytest.raises(ValueError, match=r"two images each of two people or more, not 0; use a set"):
        swap_test(_FirstChannel(), Contract(size=32), _RedFaces(per_person=1))
