"""Planned memory against the peak of a fresh process: slot heads at two sizes, and one whole training."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from facescale.plan.bench import bench_heads, parse_variants

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "plan_bytes.py"


@pytest.mark.parametrize(
    ("head", "num_ids", "batch_size"), [("attfc:share=0.3", 20_000, 512), ("f2c:share=0.3", 60_000, 64)]
)
def test_slot_heads_take_what_was_planned(head: str, num_ids: int, batch_size: int) -> None:
    sizes = {"embedding_size": 256, "batch_size": batch_size, "seconds": 0.0, "device": "cpu"}
    (one,) = bench_heads(parse_variants(head), [num_ids], **sizes)
    if one.peak_bytes is None:
        pytest.skip("this system does not tell the peak of a process")
    assert 0.75 < one.planned_bytes / one.peak_bytes < 1.33


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
def test_a_training_takes_what_was_planned() -> None:
    spec = importlib.util.spec_from_file_location("plan_bytes", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    settings = [
        "data.train=synthetic:ids=40,images=4,size=56",
        "backbone.name=mbf_s",
        "backbone.input_size=56",
    ]
    settings += ["train.batch_size=64", "train.precision=fp32", "head.name=full"]
    done = subprocess.run(
        [sys.executable, "-c", script.TRAINING, json.dumps(settings)], stdout=subprocess.PIPE, check=True
    )
    planned, peak = json.loads(done.stdout.splitlines()[-1])
    assert 0.75 < planned / peak < 1.33
