"""Train a recipe on real faces with several seeds and report accuracy, spread, time and memory.

    python benchmarks/real_faces.py --train celeba cfp --lfw lfw --seeds 0 1 2 --out runs/study

``--train`` are folders of aligned identities, ``--lfw`` a folder with pairs.txt and images. ``--set`` changes
the recipe, for comparisons: the same network, data, epochs and seeds, another head or loss.
"""

import argparse
import json
import os
import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from training import train_recipe


def one(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """One training; the figures come from its own files."""
    run = arguments.out / f"seed{seed}"
    settings = [
        f"data.train={json.dumps([str(folder) for folder in arguments.train])}",
        f"eval.sets.lfw={arguments.lfw}",
        f"train.seed={seed}",
        *arguments.settings,
    ]
    return {"seed": seed, **train_recipe(arguments.config, run, settings, arguments.threads)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", type=Path, default=Path("small_faces"))
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--lfw", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--parallel", type=int, default=1, help="trainings at a time")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(arguments.parallel) as pool:
        rows = list(pool.map(lambda seed: one(arguments, seed), arguments.seeds))
    print(f"{platform.machine()}, {os.cpu_count()} cores, {arguments.threads} thread(s) a training")
    print("| seed | LFW | fold std | AUC | EER | minutes (CPU) | images/s | peak GiB |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        minutes = f"{row['minutes']:.1f} ({row['cpu_minutes']:.1f})"
        print(
            f"| {row['seed']} | {row['accuracy']:.2%} | {row['fold_std']:.2%} | {row['auc']:.4f} | "
            f"{row['eer']:.2%} | {minutes} | {row['images_per_s']:.0f} | {row['peak_gib']:.2f} |"
        )
    accuracies = [row["accuracy"] for row in rows]
    spread = stdev(accuracies) if len(accuracies) > 1 else 0.0
    print(f"mean {mean(accuracies):.2%} +- {spread:.2%} over seeds")
    (arguments.out / "study.json").write_text(
        json.dumps({"rows": rows, "settings": arguments.settings}, indent=1)
    )


if __name__ == "__main__":
    main()
