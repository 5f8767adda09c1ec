"""What the studies in benchmarks/ take from a training."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = (
    "data.train=synthetic:ids=6,images=4",
    "eval.sets.unseen=synthetic:pairs=40",
    "train.duration=2 steps",
    "train.batch_size=8",
    "train.log_every=1",
    "eval.every=1 steps",
)


def test_the_figures_are_those_of_the_last_evaluation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from training import train_recipe  # type: ignore[import-not-found]

    try:
        found = train_recipe(Path("small_faces"), tmp_path / "run", SMALL, 1)
    finally:
        del sys.modules["training"]
    log = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in log if line["kind"] == "eval"][-1]
    assert last["step"] == 2
    assert (found["accuracy"], found["auc"]) == (last["unseen/accuracy"], last["unseen/auc"])
    assert found["minutes"] > 0 and found["peak_gib"] > 0 and found["images_per_s"] > 0
