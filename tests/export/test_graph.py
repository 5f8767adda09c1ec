"""What a graph does around its network: scaling, colour order, half precision."""

import numpy as np
import pytest
import torch
from torch import nn

from facescale.data.loading.decode import resized
from facescale.export.graph import ExportGraph, same_faces
from facescale.model_card import Card, Contract


class Pixels(nn.Module):
    """Gives back what it is given."""

    embedding_size = 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (3, 112, 112, 3), np.uint8)


@pytest.mark.parametrize("colour", ["RGB", "BGR"])
@pytest.mark.parametrize("outer", ["RGB", "BGR"])
def test_the_network_sees_its_own_contract_whatever_comes_in(
    faces: np.ndarray, colour: str, outer: str
) -> None:
    inside = Contract(size=56, colour=colour, mean=10.0, std=200.0)  # type: ignore[arg-type]
    outside = Contract(size=112, colour=outer)  # type: ignore[arg-type]
    graph = ExportGraph(Pixels(), Card(inside), outside)
    given = outside.normalise(torch.from_numpy(faces))
    expected = inside.normalise(torch.from_numpy(same_faces(faces, 56)))
    assert (graph(given) - expected).abs().max() <= 1.01 / 200


def test_faces_are_scaled_by_the_loader_s_rule(faces: np.ndarray) -> None:
    np.testing.assert_array_equal(same_faces(faces, 75)[1], resized(faces[1], 75, 75))
    assert same_faces(faces, 112) is faces


def test_a_graph_of_the_network_s_own_contract_changes_nothing() -> None:
    x = torch.rand(2, 3, 112, 112)
    assert ExportGraph(Pixels(), Card(Contract()))(x) is x


def test_a_half_network_computes_in_fp16_and_returns_fp32() -> None:
    class Kind(Pixels):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.dtype is torch.float16
            return x

    assert ExportGraph(Kind(), Card(Contract()), half=True)(torch.ones(1, 3, 112, 112)).dtype is torch.float32
