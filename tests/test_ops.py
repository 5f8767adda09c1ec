"""Numerical building blocks: rounding at random, and its position in a run."""

import torch

from facescale.ops import StochasticRounding

CPU = torch.device("cpu")


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
