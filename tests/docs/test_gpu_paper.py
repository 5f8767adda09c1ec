"""Figures of the GPU that no GPU gave: launches are counted anew, traffic and the plan follow from sizes."""

import csv
from pathlib import Path

import pytest

from benchmarks.gpu_counts import VARIANTS, Batch, kernels_counted, meta_head, steps
from benchmarks.gpu_paper import GPUS, cases, exact_at, least_ms
from tests.compiled import interpreted

ROOT = Path(__file__).parents[2]
SIZES = Batch(num_ids=2000, embedding_size=512, images=128)


def recorded(case: str, figure: str) -> float:
    with (ROOT / "benchmarks" / "results" / "gpu_counts.csv").open(newline="") as file:
        rows = {(row["case"], row["figure"]): row["value"] for row in csv.DictReader(file)}
    return float(rows[f"`{case}`", figure])


@pytest.mark.parametrize("case", ["full", "full, bfloat16 rows", "partial_fc 0.1", "attfc 65,536", "f2c 1 %"])
def test_a_step_launches_what_the_page_says(case: str) -> None:
    interpreted("class_softmax")  # or there is nothing to count
    name, options = VARIANTS[case]
    with kernels_counted():
        seen = steps(meta_head(name, SIZES, products="bfloat16", **options), SIZES.images)
    assert seen.total == recorded(case, "kernels")
    assert (seen.copies, len(seen.waiting)) == (recorded(case, "copies"), recorded(case, "waits"))


@pytest.mark.parametrize("case", ["attfc 65,536", "f2c 1 %"])
def test_a_step_of_a_head_with_slots_takes_at_most_40_launches(case: str) -> None:
    assert recorded(case, "kernels") <= 40


def test_traffic_and_times_on_the_page_are_those_of_the_sizes() -> None:
    sizes = Batch(1_000_000, 512, 128)
    for case, (traffic, operations) in cases(sizes).items():
        assert traffic / 1e9 == pytest.approx(recorded(case, "traffic"), abs=5e-4)
        for gpu in GPUS:
            assert least_ms(traffic, operations, gpu) == pytest.approx(recorded(case, gpu.name), abs=5e-3)
    parts = 2 * 66 * 128 * 514 * 4  # written and read: a gradient, a sum and a maximum for each part
    assert cases(sizes)["full"][0] == 5 * 1_000_000 * 512 * 4 + parts


def test_72_million_identities_are_planned_to_the_byte() -> None:
    interpreted("class_softmax")
    resident, transient = exact_at(72_000_000, SIZES)
    assert resident == 72_000_000 * 512 * 2
    partial_sums, embeddings, rounding = 4 * (66 * 128 * 514 + 128 * 513), 4 * 7 * 128 * 512, 4 << 20
    assert transient == partial_sums + embeddings + rounding
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert f"{resident:,} bytes" in page and f"{transient:,} bytes" in page
    assert resident + transient < 80e9
