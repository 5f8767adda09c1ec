"""F2C's kernels, run by Triton's interpreter, against torch; what does not go through them."""

from types import ModuleType

import pytest
import torch

from facescale import margins
from facescale.heads import f2c_by_kernels
from facescale.kernels import agree
from tests.compiled import interpreted

CPU, D = torch.device("cpu"), 12


@pytest.fixture(scope="module")
def kernels() -> ModuleType:
    return interpreted("pool_views")


def test_kernels_that_agree_with_torch_are_used(kernels: ModuleType) -> None:
    f2c_by_kernels.check(kernels, CPU, torch.float32, D, tolerance=1e-5)


def test_kernels_that_compute_something_else_are_not_used(
    kernels: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = kernels.pulls
    monkeypatch.setattr(kernels, "pulls", lambda *given: [2 * x for x in right(*given)])
    with pytest.warns(UserWarning, match=r"These do not run on cpu \(the own cosine differs from torch"):
        assert not agree("These", f2c_by_kernels.check, kernels, CPU, D)


@pytest.mark.parametrize(
    ("margin", "hard", "used"), [("arcface", 3, True), ("adaface", 3, False), ("arcface", 40, False)]
)
def test_margins_of_a_single_sample_and_few_nearest_slots_go_through_the_kernels(
    margin: str, hard: int, used: bool, kernels: ModuleType
) -> None:
    found = f2c_by_kernels.kernels_of_pool(margins.build(margin), hard, torch.zeros(1, D))
    assert found is (kernels if used else None)


def test_rows_move_towards_the_new_feature_where_there_is_an_older_one(kernels: ModuleType) -> None:
    generator = torch.Generator().manual_seed(1)
    k_BD, w_ND = (torch.randn(4, D, generator=generator) for _ in range(2))
    unit_BD, w_ND = torch.nn.functional.normalize(k_BD), torch.nn.functional.normalize(w_ND)
    row_B = torch.tensor([2, -1, 0, 3])
    moved_BD = torch.nn.functional.normalize(0.7 * w_ND[row_B] + 0.3 * unit_BD)
    wanted_BD = torch.where(row_B[:, None] >= 0, moved_BD, unit_BD)
    torch.testing.assert_close(kernels.renewed(k_BD, w_ND, row_B, 0.3), wanted_BD, rtol=0, atol=1e-6)
