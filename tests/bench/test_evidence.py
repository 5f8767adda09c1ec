"""The light trainings of docs/results.md: their data, one small run, its continuation, the page's tables."""

import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from facescale.plan.check import read_config
from tests.benchmark_scripts import benchmark_scripts

ROOT = Path(__file__).parents[2]
NAMES = ("evidence_tables", "evidence_summary", "evidence", "evidence_cases", "light")
IDS = np.repeat(np.arange(20), 10)


@pytest.fixture(scope="module")
def parts() -> Iterator[dict[str, ModuleType]]:
    with benchmark_scripts(*NAMES) as found:
        yield found


def test_flips_move_exactly_their_share_to_other_identities(parts: dict[str, ModuleType]) -> None:
    wrong = parts["light"].flipped(IDS, 0.4, np.random.default_rng(0))
    assert (wrong != IDS).sum() == 80
    assert set(wrong) <= set(IDS)


def test_conflicts_cut_identities_in_two_and_move_no_image_to_another_person(
    parts: dict[str, ModuleType],
) -> None:
    wrong = parts["light"].conflicting(IDS, 0.5, np.random.default_rng(0))
    pairs = set(zip(IDS.tolist(), wrong.tolist(), strict=True))
    assert len(pairs) == 30 and len(set(wrong)) == 30 and wrong.max() == 29
    assert np.bincount(wrong)[20:].tolist() == [5] * 10


def test_few_keeps_as_many_images_of_every_identity(parts: dict[str, ModuleType]) -> None:
    places = parts["light"].few(IDS, 2, np.random.default_rng(0))
    assert np.bincount(IDS[places]).tolist() == [2] * 20
    assert len(set(places)) == 40


def test_every_training_is_a_valid_config_and_sees_as_many_images(parts: dict[str, ModuleType]) -> None:
    with parts["light"].registered(None, None):
        for training, seed in parts["evidence"].wanted(parts["evidence_cases"].TABLES, [0]):
            config = read_config(training.recipe, training.options(seed))
            views = 2 if config.head.name == "f2c" else 1
            steps = int(config.train.duration.removesuffix(" steps"))
            assert config.train.batch_size * views * steps == training.images // 64 * 64, training.name


def test_a_training_leaves_a_line_and_is_not_repeated(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    evidence, training = parts["evidence"], parts["evidence_cases"].Training
    faces = parts["light"].Faces(["synthetic:ids=12,images=8,size=56"], "synthetic:pairs=40", 40, tmp_path)
    jobs = [
        (training("real:flips=0.2", "small_faces_attfc", (), 128), 0),
        (training("drawn:ids=12,images=6", "synthetic_large", ("head.name=full",), 128), 1),
    ]
    results = tmp_path / "runs.csv"
    for _ in range(2):
        evidence.measure(jobs, faces, tmp_path, results, "any", minutes=5)
    rows = evidence.read(results)
    assert [(row["training"], row["seed"]) for row in rows] == [(job.name, str(seed)) for job, seed in jobs]
    for row in rows:
        assert 0 <= float(row["low"]) < float(row["accuracy"]) < float(row["high"]) <= 1
    runs = parts["evidence_summary"].Runs.of(results, tmp_path)
    right, first, second = runs.right(jobs[0][0], [0])
    assert right.mean() == pytest.approx(float(rows[0]["accuracy"]), abs=1e-4)
    assert len(first) == len(second) == 40


def test_no_training_begins_when_the_time_is_over(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    jobs = [(parts["evidence_cases"].Training("real", "small_faces", (), 128), 0)]
    parts["evidence"].measure(jobs, None, tmp_path, tmp_path / "runs.csv", "any", minutes=-1)
    assert not (tmp_path / "runs.csv").exists()


def test_the_page_is_what_the_command_writes(parts: dict[str, ModuleType]) -> None:
    tables = parts["evidence_tables"]
    page = tables.PAGE.read_text(encoding="utf-8")
    assert tables.updated(page) == page, "run: python benchmarks/evidence_tables.py"


def test_a_difference_is_of_the_seeds_that_both_have(parts: dict[str, ModuleType], tmp_path: Path) -> None:
    table = parts["evidence_cases"].TABLES["shallow"]
    full, attfc = (table.cells[head, "2 images"] for head in ("full", "AttFC"))
    shares = {full: {0: 0.5, 1: 0.6, 2: 0.9}, attfc: {0: 0.7, 1: 0.5}}
    people = np.arange(20)
    for training, of_seed in shares.items():
        for seed, share in of_seed.items():
            file = parts["evidence"].decisions(tmp_path, training, seed)
            np.savez(file, right=people < share * 20, first=people, second=people)
    by_name = {training.name: of_seed for training, of_seed in shares.items()}
    rows = parts["evidence_summary"].summarise(parts["evidence_summary"].Runs(by_name, tmp_path))
    found = {row["row"]: row for row in rows if row["table"] == "shallow"}
    assert [found["full"][key] for key in ("seeds", "accuracy", "seed_low", "seed_high")] == (
        ["3", "0.6667", "0.5000", "0.9000"]
    )
    keys = ("difference_seeds", "difference", "difference_seed_low", "difference_seed_high")
    assert [found["AttFC"][key] for key in keys] == ["2", "0.0500", "-0.1000", "0.2000"]
    assert float(found["AttFC"]["difference_low"]) < 0.05 < float(found["AttFC"]["difference_high"])
    assert "difference" not in found["full"]


def _row(parts: dict[str, ModuleType], row: str, **figures: str) -> dict[str, str]:
    empty = dict.fromkeys(parts["evidence_summary"].SUMMARY, "")
    return empty | {"table": "noise", "column": "clean", "row": row} | figures


def test_every_table_stands_on_the_page(parts: dict[str, ModuleType]) -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- evidence: (\w+) -->", page)) == sorted(parts["evidence_cases"].TABLES)


def test_only_three_seeds_that_agree_make_a_difference_bold(parts: dict[str, ModuleType]) -> None:
    mean = {"seeds": "3", "accuracy": "0.7", "seed_low": "0.69", "seed_high": "0.71", "low": "0.68"}
    mean |= {"high": "0.72"}
    gain = {"difference": "-0.02", "difference_low": "-0.03", "difference_high": "-0.01", "p": "0.001"}
    gain |= {"difference_seed_low": "-0.021", "difference_seed_high": "-0.019", "difference_seeds": "3"}
    rows = [
        _row(parts, "full", **mean),
        _row(parts, "F2C", **mean, **gain),
        _row(parts, "AttFC", **mean, **gain | {"difference_seed_high": "0.001"}),
        _row(parts, "Partial FC 0.3", **mean | {"seeds": "1"}, **gain | {"difference_seeds": "2"}),
    ]
    assert parts["evidence_tables"].render("noise", rows) == (
        "| head | clean |\n|---|---|\n"
        "| full | 70.0 (69.0 to 71.0; 68.0 to 72.0) |\n"
        "| F2C | 70.0 (69.0 to 71.0; 68.0 to 72.0) |\n"
        "| AttFC | 70.0 (69.0 to 71.0; 68.0 to 72.0) |\n"
        "| Partial FC 0.3 | 70.0 (1 seed; 68.0 to 72.0) |\n\n"
        "| less full | clean |\n|---|---|\n"
        "| F2C | **-2.0** (-2.1 to -1.9; -3.0 to -1.0) |\n"
        "| AttFC | -2.0 (-2.1 to +0.1; -3.0 to -1.0) |\n"
        "| Partial FC 0.3 | -2.0 (2 seeds, -2.1 to -1.9; -3.0 to -1.0) |\n"
    )
