"""Loops are compiled where nothing can be cached, too."""

from typing import Any

import pytest

numba = pytest.importorskip("numba")

from facescale.kernels.compiled import compiled  # noqa: E402


def test_a_loop_is_compiled_where_no_cache_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = numba.njit, []

    def njit(*functions: Any, cache: bool = False, **options: Any) -> Any:
        asked.append(cache)
        if cache:
            raise RuntimeError("cannot cache function 'add': no locator available for file 'x.py'")
        return real(*functions, **options)

    monkeypatch.setattr(numba, "njit", njit)

    @compiled()
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, 2) == 3
    assert asked[:2] == [True, False]
