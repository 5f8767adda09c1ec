"""The published table stands beside plans for the same training."""

import json
from typing import Any

from facescale.bench.published import HEADS, PUBLISHED, planned_bytes


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
