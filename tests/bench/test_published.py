"""The published table stands beside plans for the same training."""

import json
from pathlib import Path
from typing import Any

import pytest

from facescale.bench import here
from facescale.bench.published import HEADS, PUBLISHED, planned_bytes
from facescale.bench.published_plot import plot_published
from facescale.plan.bench import HeadFigures, bench_heads, parse_variants


def test_plans_grow_with_the_identities_as_the_heads_say() -> None:
    small, large = planned_bytes(1_000_000), planned_bytes(29_000_000)
    assert all(large[name] > small[name] for name in HEADS)
    # 512 float32 of row and momentum for each of an eighth of the identities
    centres = 28_000_000 / 8 * 512 * 4 * 2
    assert abs(large["full"] - small["full"] - centres) < 0.01 * centres
    assert large["f2c 1 %"] - small["f2c 1 %"] < 0.05 * centres


def test_where_model_parallel_ran_out_of_memory_the_exact_head_fits() -> None:
    """The published model parallel needs 32 GB at 5.5 million identities and has no row after it."""
    largest = max(one.num_ids for one in PUBLISHED if one.megabytes[1])
    assert largest == 5_500_000
    assert planned_bytes(29_000_000)["full"] < 32e9


def test_the_command_prints_the_published_figures(facescale: Any) -> None:
    code, out, _ = facescale("bench", "published", "--json")
    assert code == 0
    table = {row["identities"]: row for row in json.loads(out)}
    assert table["1,000,000"]["published Partial FC 0.1"] == "5.62 GB, 4,803 images/s"
    assert table["29,000,000"]["published data parallel"] == "-"
    assert table["29,000,000"]["planned full"].endswith(" GB")


def test_the_table_is_measured_on_this_machine(facescale: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Network and head make the step; what there is no memory for is planned, and says so."""

    def figures(variants: Any, num_ids: Any, **sizes: Any) -> Any:
        assert list(variants) == list(here.WAYS.values()) and sizes["batch_size"] == 8
        for count in num_ids:
            times = (None, None) if count == 29_000_000 else (1000.0, 10**6)
            yield from (HeadFigures(str(one), count, times[0], None, 10**9, times[1]) for one in variants)

    monkeypatch.setattr(here, "backbone_seconds", lambda config, plan, needs: 3.0)
    monkeypatch.setattr(here, "bench_heads", figures)
    words = ["bench", "published", "--measure", "--backbone", "mbf_s", "--batch-size", "8", "--device", "cpu"]
    code, out, _ = facescale(*words, "--ids", "1000,29M", "--json")
    assert code == 0
    small, large = json.loads(out)
    assert [one["way"] for one in small] == list(here.WAYS)
    assert small[0]["images_per_s"] == 8 / (3 + 1) and small[0]["measured"]
    assert small[3]["images_per_s"] < small[0]["images_per_s"], "the twin takes time too"
    assert large[0]["num_bytes"] - small[0]["num_bytes"] == 10**9 - 10**6
    row = here.here_row([here.Here(x["way"], x["num_ids"], x["images_per_s"], x["num_bytes"]) for x in large])
    assert row["published Partial FC 0.1"] == "32.32 GB, 1,855 images/s"
    assert row["here dense"].startswith("planned ")


def test_a_plot_without_measurements_is_refused(facescale: Any) -> None:
    assert "--plot needs --measure" in facescale("bench", "published", "--plot", "a.png")[2]


@pytest.mark.slow
def test_planned_memory_of_the_dense_way_is_what_it_takes() -> None:
    (one,) = bench_heads(parse_variants("dense"), [30_000], batch_size=64, seconds=0.0, device="cpu")
    assert one.peak_bytes and one.planned_bytes == pytest.approx(one.peak_bytes, rel=0.25)


def test_published_and_measured_figures_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    figures = [here.Here("dense", 10**6, 3.0, 10**10), here.Here("dense", 10**7, None, 10**11)]
    plot_published(figures, tmp_path / "p.png")
    assert (tmp_path / "p.png").stat().st_size > 10_000
