"""MLA-ArcFace against the plain IResNet on real faces: steps to the same accuracy, and final accuracy.

    python benchmarks/mla.py --train celeba cfp --lfw lfw --steps 320 --seeds 0 1 2 --out runs/mla

The networks have one block per stage, the same data, recipe, seeds and number of steps: `r10`, `mla_r10` as
released, and `mla_r10_clean` with separate batch norms for the branches that share one there.
The release claims that MLA reaches ArcFace's accuracy on LFW in 47 % fewer steps; here that is the step, on
straight lines between evaluations, at which a run first has the mean final accuracy of the plain runs.
"""

import argparse
import json
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from real_faces import one

from facescale.run import RunDir

NETS = {
    "r10": ("backbone.name=r10",),
    "mla_r10": ("backbone.name=mla_r10",),
    "mla_r10_clean": ("backbone.name=mla_r10", "backbone.clean=true"),
}
Curve = list[tuple[int, float]]  # (step, LFW accuracy), steps rising


def steps_to_reach(curve: Curve, accuracy: float) -> float | None:
    """Step at which the straight lines through ``curve`` first reach ``accuracy``; None if they never do."""
    if curve[0][1] >= accuracy:
        return float(curve[0][0])
    for (before, low), (after, high) in pairwise(curve):
        if high >= accuracy:
            return before + (after - before) * (accuracy - low) / (high - low)
    return None


def _window(size: int) -> list[str]:
    """Settings with which the network sees the part of the face that the recipe shows, at another size."""
    scale = size / 56
    whole, left, top = (round(pixels * scale) for pixels in (75, 9, 17))
    return [f"backbone.input_size={whole}", f"backbone.crop=[{left}, {top}, {size}]"]


def train(arguments: argparse.Namespace, net: str, seed: int) -> dict[str, Any]:
    """One training through the command line; its accuracy at every evaluation."""
    settings = [
        *NETS[net],
        *_window(arguments.size),
        f"train.duration={arguments.steps} steps",
        f"eval.every={100 / arguments.evaluations} %",
        "eval.flip=false",
        "train.log_every=10",
        *arguments.settings,
    ]
    out = arguments.out / net
    out.mkdir(exist_ok=True)
    row = one(argparse.Namespace(**(vars(arguments) | {"out": out, "settings": settings})), seed)
    evaluations = RunDir(out / f"seed{seed}").read_metrics("eval")
    curve = [(line["step"], line["lfw/accuracy"]) for line in evaluations]
    print(f"{net} seed {seed}: " + ", ".join(f"{a:.2%} at {s}" for s, a in curve), flush=True)
    return row | {"net": net, "curve": curve}


def report(rows: list[dict[str, Any]]) -> None:
    """The table, and in a sentence a network what became of the claim."""
    finals = {net: [row["accuracy"] for row in rows if row["net"] == net] for net in NETS}
    wanted = mean(finals["r10"])
    print("| net | seed | final LFW | steps to the plain mean | minutes (CPU) | images/s |")
    print("|---|---|---|---|---|---|")
    reached: dict[str, list[float | None]] = {net: [] for net in NETS}
    for row in rows:
        steps = steps_to_reach(row["curve"], wanted)
        reached[row["net"]].append(steps)
        when = "never" if steps is None else f"{steps:.0f}"
        minutes = f"{row['minutes']:.1f} ({row['cpu_minutes']:.1f})"
        print(
            f"| {row['net']} | {row['seed']} | {row['accuracy']:.2%} | {when} | {minutes} | "
            f"{row['images_per_s']:.0f} |"
        )
    last = rows[0]["curve"][-1][0]
    for net, values in finals.items():
        spread = stdev(values) if len(values) > 1 else 0.0
        in_time = [steps for steps in reached[net] if steps is not None]
        after = f", on average after {mean(in_time) / last:.0%} of the steps" if in_time else ""
        print(
            f"{net}: {mean(values):.2%} +- {spread:.2%}; reaches the plain {wanted:.2%} "
            f"in {len(in_time)} of {len(values)} run(s){after}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("small_faces"))
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=320, help="of each training")
    parser.add_argument("--size", type=int, default=64, help="side that the network sees, a multiple of 16")
    parser.add_argument("--evaluations", type=int, default=6, help="on LFW, evenly spread over a training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=1, help="trainings at a time")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} thread(s) a training")
    jobs = [(net, seed) for seed in arguments.seeds for net in NETS]
    with ThreadPoolExecutor(arguments.parallel) as pool:
        rows = list(pool.map(lambda job: train(arguments, *job), jobs))
    (arguments.out / "study.json").write_text(json.dumps(rows, indent=1))
    report(sorted(rows, key=lambda row: list(NETS).index(row["net"])))


if __name__ == "__main__":
    main()
