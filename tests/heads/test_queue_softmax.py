"""The negatives of slot heads, chunk by chunk, against logits as one matrix in float64."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from facescale import margins
from facescale.distributed import Dist
from facescale.heads.queue_softmax import Chunks, negatives_value
from facescale.heads.softmax import NOTHING

G, S, D = 5, 9, 4


def drawn() -> tuple[Tensor, Tensor, Tensor]:
    """Unit embeddings (G, D), unit rows (S, D), cells (S, G) that do not count."""
    generator = torch.Generator().manual_seed(5)
    e_GD = torch.nn.functional.normalize(torch.randn(G, D, generator=generator))
    rows_SD = torch.nn.functional.normalize(torch.randn(S, D, generator=generator))
    return e_GD, rows_SD, torch.rand(S, G, generator=generator) < 0.3


def chunked(rows_SD: Tensor, hidden_SG: Tensor | None, size: int) -> Chunks:
    def chunks() -> Iterator[tuple[Tensor, Tensor | None]]:
        for start in range(0, len(rows_SD), size):
            part = slice(start, start + size)
            yield rows_SD[part], None if hidden_SG is None else hidden_SG[part]

    return chunks


@pytest.mark.parametrize("name", ["cosface", "curricular", "uniface"])
@pytest.mark.parametrize("size", [2, S])
@pytest.mark.parametrize("hides", [True, False])
def test_value_and_gradients_equal_the_dense_ones(name: str, size: int, hides: bool) -> None:
    e_GD, rows_SD, hidden_SG = drawn()
    margin = margins.build(name, scale=16.0)
    margin.set_num_negatives(S)
    target = margin.prepare(torch.linspace(-0.5, 0.9, G))
    weight_G = torch.linspace(-1, 2, G)
    leaf_GD = e_GD.clone().requires_grad_()
    chunks = chunked(rows_SD, hidden_SG if hides else None, size)
    value_G = negatives_value(leaf_GD, margin, target, chunks, torch.float32, Dist())
    inputs = [leaf_GD, *margin.parameters()]
    found = torch.autograd.grad((value_G * weight_G).sum(), inputs)

    dense_GD = e_GD.double().requires_grad_()
    out_GS = margin.negatives(dense_GD @ rows_SD.double().T, target)
    softmax = margin.reduction == "softmax"
    if hides:
        out_GS = out_GS.masked_fill(hidden_SG.T, -torch.inf if softmax else 0.0)
    expected_G = out_GS.logsumexp(1) if softmax else out_GS.sum(1)
    expected = torch.autograd.grad((expected_G * weight_G).sum(), [dense_GD, *margin.parameters()])
    torch.testing.assert_close(value_G.double(), expected_G, rtol=1e-5, atol=1e-5)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.double(), theirs.double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "expected"), [("cosface", NOTHING), ("uniface", 0.0)])
def test_a_sample_without_negatives_has_the_neutral_value_and_no_gradient(name: str, expected: float) -> None:
    e_GD, rows_SD, hidden_SG = drawn()
    hidden_SG[:, 2] = True
    leaf_GD = e_GD.requires_grad_()
    margin = margins.build(name)
    target = margin.prepare(torch.zeros(G))
    chunks = chunked(rows_SD, hidden_SG, 4)
    value_G = negatives_value(leaf_GD, margin, target, chunks, torch.float32, Dist())
    value_G.sum().backward()
    assert value_G[2] == expected
    assert leaf_GD.grad is not None and not leaf_GD.grad[2].any() and leaf_GD.grad[1].any()
