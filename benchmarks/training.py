"""Run one training in a fresh process and measure it; used by the studies beside this file."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from facescale.evaluate.records import read_records
from facescale.run import RunDir


def train_recipe(config: Path, run: Path, settings: Sequence[str], threads: int) -> dict[str, float]:
    """Train ``config`` into ``run`` through the command line; what it prints goes to ``run``.log.

    Args:
        config: the recipe.
        run: folder of the run.
        settings: as after ``--set``.
        threads: of torch.

    Returns:
        The last evaluation (of its one set), minutes of wall and processor time (loader included), rate,
        share of the time that was spent waiting for data, and peak memory of the process.
    """
    words = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "facescale", "train", str(config), "--run", str(run)]
    start = time.monotonic()
    with run.with_name(run.name + ".log").open("w") as log:
        process = subprocess.Popen([*command, "--threads", str(threads), *words], stdout=log)
        _, status, usage = os.wait4(process.pid, 0)
    minutes = (time.monotonic() - start) / 60
    if status:
        raise RuntimeError(f"the training failed; see {log.name}")
    folder = RunDir(run)
    result, rows = read_records(folder.results)[-1].result, folder.read_metrics("train")
    return {
        "accuracy": result["accuracy"]["mean"],
        "fold_std": result["accuracy"]["std"],
        "auc": result["auc"],
        "eer": result["eer"],
        "minutes": minutes,
        "cpu_minutes": (usage.ru_utime + usage.ru_stime) / 60,
        "images_per_s": mean(row["images_per_s"] for row in rows),
        "waiting": mean(row["wait_share"] for row in rows),
        "peak_gib": usage.ru_maxrss / 2**20,
    }
