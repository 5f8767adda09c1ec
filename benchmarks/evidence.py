"""Evidence on heads, margins and their options by many light trainings; tables in docs/results.md.

    python benchmarks/evidence.py --train celeba cfp_nolfw --lfw lfw --out runs/evidence --only noise margins
    python benchmarks/evidence_tables.py --out runs/evidence

Trains, one after the other in this process, what `evidence_cases.TABLES` lists: with seed 0 for all tables,
then with the next seed. A result is a line of results/evidence/runs.csv, with its 95 % interval over people;
what is there is not trained again, so a run that was stopped continues. Right and wrong decisions of each
training stay in ``--out``, for the second command: `evidence_summary.py` reads them.
"""

import argparse
import csv
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from evidence_cases import TABLES, Training
from light import Faces, registered

from facescale.evaluate.records import read_records
from facescale.plan.check import read_config
from facescale.train import train

RESULTS = Path(__file__).resolve().parent / "results" / "evidence"
FIGURES = ("accuracy", "fold_std", "low", "high", "auc")
RUNS = ("training", "seed", *FIGURES, "cpu_s", "machine", "commit", "date")


def run(training: Training, seed: int, faces: Faces, out: Path) -> dict[str, str]:
    """Train and test once; right and wrong decisions stay in ``out``, the run folder does not."""
    folder, start = out / "run", time.process_time()
    shutil.rmtree(folder, ignore_errors=True)
    with registered(faces.training(training.data, seed), faces.test(training.data)):
        found = train(read_config(training.recipe, training.options(seed)), folder)
    if not found.finished:
        raise SystemExit("stopped; the same command continues")
    (record,) = read_records(found.run.results)
    pairs = {name: np.array(record.curves["pairs"][name]) for name in ("right", "first", "second")}
    np.savez_compressed(decisions(out, training, seed), **pairs)
    shutil.rmtree(folder)
    accuracy, (low, high) = record.result["accuracy"], record.result["intervals"]["accuracy"]
    figures = (accuracy["mean"], accuracy["std"], low, high, record.result["auc"])
    shown = {name: f"{value:.4f}" for name, value in zip(FIGURES, figures, strict=True)}
    return shown | {"cpu_s": f"{time.process_time() - start:.0f}"}


def decisions(out: Path, training: Training, seed: int) -> Path:
    """File of a training's right and wrong decisions, and of the two people of each pair."""
    folder = out / "decisions"
    folder.mkdir(parents=True, exist_ok=True)
    word = "".join(letter if letter.isalnum() or letter in "=.-" else "_" for letter in training.name)
    return folder / f"{word}_seed{seed}.npz"


def wanted(names: Iterable[str], seeds: Sequence[int]) -> list[tuple[Training, int]]:
    """Trainings and seeds of some tables, each once; the first seed of all tables comes first."""
    found: dict[tuple[Training, int], None] = {}
    for seed in seeds:
        for name in names:
            found |= {(training, seed): None for training in TABLES[name].cells.values()}
    return list(found)


def measure(
    jobs: Iterable[tuple[Training, int]], faces: Faces, out: Path, results: Path, machine: str, minutes: float
) -> None:
    """Train what ``results`` does not have, until the time is over."""
    end = time.monotonic() + 60 * minutes
    done = {(row["training"], int(row["seed"])) for row in read(results)}
    for training, seed in jobs:
        if (training.name, seed) in done:
            continue
        if time.monotonic() > end:
            print("the time is over; the same command continues")
            return
        figures = run(training, seed, faces, out)
        made = {"machine": machine, "commit": _commit(), "date": datetime.now(UTC).date().isoformat()}
        _append(results, {"training": training.name, "seed": seed, **figures, **made})
        print(f"{figures['accuracy']}  {figures['cpu_s']} s  seed {seed}  {training.name}", flush=True)


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _append(path: Path, row: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, RUNS, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _commit() -> str:
    """Of this repository; empty outside of one."""
    command = ["git", "-C", str(RESULTS), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--lfw", required=True)
    parser.add_argument("--pairs", type=int, default=4000, help="of synthetic faces")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), metavar="TABLE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=1e9, help="no training begins after this time")
    parser.add_argument("--machine", default="", help="words for the results")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the CSV files")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    faces = Faces(arguments.train, arguments.lfw, arguments.pairs, arguments.out / "pixels")
    jobs, results = wanted(arguments.only, arguments.seeds), arguments.results / "runs.csv"
    measure(jobs, faces, arguments.out, results, arguments.machine, arguments.minutes)


if __name__ == "__main__":
    main()
