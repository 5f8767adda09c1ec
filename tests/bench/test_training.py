"""What the studies in benchmarks/ take from a training."""

from pathlib import Path

from facescale.run import RunDir
from tests.benchmark_scripts import benchmark_scripts

SMALL = (
    "data.train=synthetic:ids=6,images=4",
    "eval.sets.unseen=synthetic:pairs=40",
    "train.duration=2 steps",
    "train.batch_size=8",
    "train.log_every=1",
    "eval.every=1 steps",
)


def test_the_figures_are_those_of_the_last_evaluation(tmp_path: Path) -> None:
    with benchmark_scripts("training") as scripts:
        found = scripts["training"].train_recipe(Path("small_faces"), tmp_path / "run", SMALL, 1)
    last = RunDir(tmp_path / "run").read_metrics("eval")[-1]
    assert last["step"] == 2
    assert (found["accuracy"], found["auc"]) == (last["unseen/accuracy"], last["unseen/auc"])
    assert found["minutes"] > 0 and found["peak_gib"] > 0 and found["images_per_s"] > 0
