"""What a graph does around its network: scaling by the loader's rule, colour order, half precision."""

import numpy as np
import pytest
import torch
from torch import nn

from facescale.data.loading.decode import resized
from facescale.export.graph import ExportGraph, Resize, same_faces
from facescale.model_card import Card, Contract, Graph


class Pixels(nn.Module):
    """Gives back what it is given."""

    embedding_size = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)


@pytest.mark.parametrize("side", [56, 75, 96, 128, 160])
def test_the_graph_scales_as_the_loader_does(faces: np.ndarray, side: int) -> None:
    expected = np.stack([resized(face, side, side) for face in faces]).transpose(0, 3, 1, 2)
    scaled = Resize(112, side)(torch.from_numpy(faces).permute(0, 3, 1, 2).float())
    difference = np.abs(scaled.numpy() - expected)
    assert difference.max() <= 2  # Pillow rounds its weights to 22 bits, so a half may fall on either side
    assert (difference > 0).mean() < 1e-3
    np.testing.assert_array_equal(same_faces(faces, side).transpose(0, 3, 1, 2), expected)


@pytest.mark.parametrize("uint8_input", [True, False])
@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("outside", [None, Contract(size=112, mean=127.5, std=127.5)])
def test_the_network_sees_its_own_contract_whatever_comes_in(
    faces: np.ndarray, uint8_input: bool, colour: str, outside: Contract | None
) -> None:
    inside = Contract(size=56, colour=colour, mean=10.0, std=200.0)  # type: ignore[arg-type]
    card = Card(inside, graph=Graph(uint8_input=uint8_input, input_size=112))
    graph = ExportGraph(Pixels(), card, outside)
    given = torch.from_numpy(faces)
    if not uint8_input:
        given = (outside or Contract(112, inside.colour, 10.0, 200.0)).normalise(given)
    expected = inside.normalise(torch.from_numpy(same_faces(faces, 56)))
    assert (graph(given) - expected).abs().max() <= 1.01 / 200


def test_a_graph_of_the_network_s_own_contract_changes_nothing() -> None:
    x = torch.rand(2, 3, 112, 112)
    assert ExportGraph(Pixels(), Card(Contract()))(x) is x


def test_a_half_network_computes_in_fp16_and_returns_fp32() -> None:
    class Kind(Pixels):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dtype is torch.float16
            return x

    assert ExportGraph(Kind(), Card(Contract()), half=True)(torch.ones(1, 3, 112, 112)).dtype is torch.float32
