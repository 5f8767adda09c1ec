"""Unit rows and AttFC's centres by Triton's interpreter against torch in float64."""

from types import ModuleType

import pytest
import torch

from facescale.heads.attfc import generative_centres
from facescale.ops import unit
from tests.compiled import interpreted

B, V, D = 5, 3, 12


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return interpreted("unit_rows")


@pytest.mark.parametrize("uses", ["both", "row", "length"])
def test_unit_rows_and_lengths_have_the_right_values_and_gradients(kernels: ModuleType, uses: str) -> None:
    generator = torch.Generator().manual_seed(1)
    x_BD = torch.randn(B, D, generator=generator)
    x_BD[2] = 0
    weight_BD, weight_B = torch.randn(B, D, generator=generator), torch.randn(B, generator=generator)

    def mixed(e_BD: torch.Tensor, norm_B: torch.Tensor) -> torch.Tensor:
        row, length = (e_BD * weight_BD.to(e_BD)).sum(), (norm_B * weight_B.to(e_BD)).sum()
        return {"both": row + length, "row": row, "length": length}[uses]

    leaf, exact = x_BD.clone().requires_grad_(), x_BD.double().requires_grad_()
    e_BD, norm_B = kernels.unit_and_norm(leaf)
    torch.testing.assert_close(e_BD.double(), unit(exact), rtol=0, atol=1e-6)
    torch.testing.assert_close(norm_B.double(), exact.norm(dim=1), rtol=1e-6, atol=0)
    (found,) = torch.autograd.grad(mixed(e_BD, norm_B), leaf)
    (wanted,) = torch.autograd.grad(mixed(unit(exact), exact.norm(dim=1)), exact)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalise_keys", [True, False])
@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_centres_are_those_of_attention(
    kernels: ModuleType, normalise_keys: bool, temperature: float
) -> None:
    generator = torch.Generator().manual_seed(2)
    q_BD, k_VBD = torch.randn(B, D, generator=generator), torch.randn(V, B, D, generator=generator)
    found_BD, most_B = kernels.attention_centres(q_BD, k_VBD, temperature, normalise_keys)
    wanted_BD, attention_BV = generative_centres(q_BD.double(), k_VBD.double(), temperature, normalise_keys)
    torch.testing.assert_close(found_BD.double(), wanted_BD, rtol=0, atol=1e-5)
    torch.testing.assert_close(most_B.double(), attention_BV.amax(1), rtol=1e-5, atol=0)
