"""Units for bfloat16: what the CPU has, and what oneDNN may use of it."""

import pytest
import torch

from facescale.machine.bf16 import multiplies_bf16
from facescale.ops import product_dtype
from facescale.plan.plan import pick_precision

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _able(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.cpu,
        "get_capabilities",
        lambda: {"avx512_bf16": True, "amx_bf16": False},
        raising=False,
    )
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)


def test_auto_is_bf16_where_the_cpu_has_units_for_it() -> None:
    assert multiplies_bf16(CPU)
    assert product_dtype("auto", CPU) is torch.bfloat16
    assert pick_precision("auto", CPU) == "bf16"


def test_auto_is_float32_on_a_cpu_without_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True}, raising=False)
    assert product_dtype("auto", CPU) is torch.float32
    assert pick_precision("auto", CPU) == "fp32"


@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
@pytest.mark.parametrize(
    ("limit", "able"),
    [("AVX2", False), ("avx512_core", False), ("AVX512_CORE_BF16", True), ("ALL", True)],
)
def test_a_limit_of_onednn_counts(name: str, limit: str, able: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, limit)
    assert multiplies_bf16(CPU) is able


def test_the_newer_name_of_the_limit_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "ALL")
    monkeypatch.setenv("DNNL_MAX_CPU_ISA", "AVX2")
    assert multiplies_bf16(CPU)


def test_another_device_has_no_such_units() -> None:
    assert not multiplies_bf16(torch.device("meta"))


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_torch_2_8_is_asked_in_its_own_way(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert multiplies_bf16(CPU) == (avx512 or amx)
