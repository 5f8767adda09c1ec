"""The measurement of heads runs for all of them and gives sensible figures."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from facescale.bench import bench_heads, plot_heads
from facescale.heads import HEADS


def test_every_head_is_measured_at_every_number_of_identities() -> None:
    figures = bench_heads(
        tuple(HEADS), (1000, 3000), embedding_size=16, batch_size=8, seconds=0.01, device="cpu"
    )
    assert [(one.head, one.num_ids) for one in figures] == [(n, c) for c in (1000, 3000) for n in HEADS]
    for one in figures:
        assert one.images_per_second == pytest.approx(8000 / one.step_ms)
        assert one.planned_bytes > 0
        assert set(one.to_dict()) >= {"head", "num_ids", "step_ms", "peak_bytes"}


def test_memory_follows_the_number_of_identities_for_the_full_head() -> None:
    small, large = bench_heads(
        ("full",), (2000, 200_000), embedding_size=64, batch_size=8, seconds=0.01, device="cpu"
    )
    assert large.planned_bytes > 20 * small.planned_bytes
    assert large.peak_bytes is None or large.peak_bytes > 0.8 * 200_000 * 64 * 8


def test_a_plot_without_matplotlib_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ValueError, match=r"plots need matplotlib; install facescale\[plot\]"):
        plot_heads([], tmp_path / "heads.png")
