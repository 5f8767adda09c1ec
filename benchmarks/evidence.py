"""Evidence on heads, margins and their options by many light trainings; tables in docs/results.md.

    python benchmarks/evidence.py --train celeba cfp_nolfw --lfw lfw --out runs/evidence --only noise margins
    python benchmarks/evidence.py --train celeba cfp_nolfw --lfw lfw --out runs/evidence --summarise

Trains, one after the other in this process, what `evidence_cases.TABLES` lists: with seed 0 for all tables,
then with the next seed. A result is a line of results/evidence/runs.csv, with its 95 % interval over people;
what is there is not trained again, so a run that was stopped continues. ``--summarise`` writes summary.csv:
mean and spread over seeds, the interval of the mean over people, and the difference to the table's reference
on the same pairs, of right decisions averaged over the seeds that both have. `evidence_tables.py` writes the
page.
"""

import argparse
import csv
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import torch
from evidence_cases import TABLES, Table, Training
from light import Faces, registered

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.records import read_records
from facescale.evaluate.significance import paired_difference
from facescale.plan.check import read_config
from facescale.train import train

RESULTS = Path(__file__).resolve().parent / "results" / "evidence"
FIGURES = ("accuracy", "fold_std", "low", "high", "auc")
RUNS = ("training", "seed", *FIGURES, "cpu_s", "machine", "commit", "date")
RESAMPLES = 1000  # of the people
COMPARED = ("difference", "difference_low", "difference_high", "p")
SUMMARY = ("table", "row", "column", "seeds", "accuracy", "spread", "low", "high", *COMPARED)


def run(training: Training, seed: int, faces: Faces, out: Path) -> dict[str, float]:
    """Train and test once; right and wrong decisions stay in ``out``, the run folder does not."""
    folder, start = out / "run", time.process_time()
    shutil.rmtree(folder, ignore_errors=True)
    with registered(faces.training(training.data, seed), faces.test(training.data)):
        found = train(read_config(training.recipe, training.options(seed)), folder)
    if not found.finished:
        raise SystemExit("stopped; the same command continues")
    (record,) = read_records(found.run.results)
    pairs = {name: np.array(record.curves["pairs"][name]) for name in ("right", "first", "second")}
    np.savez_compressed(_decisions(out, training, seed), **pairs)
    shutil.rmtree(folder)
    low, high = record.result["intervals"]["accuracy"]
    accuracy = record.result["accuracy"]
    return {
        "accuracy": accuracy["mean"],
        "fold_std": accuracy["std"],
        "low": low,
        "high": high,
        "auc": record.result["auc"],
        "cpu_s": time.process_time() - start,
    }


def _decisions(out: Path, training: Training, seed: int) -> Path:
    folder = out / "decisions"
    folder.mkdir(parents=True, exist_ok=True)
    word = "".join(letter if letter.isalnum() or letter in "=.-" else "_" for letter in training.name)
    return folder / f"{word}_seed{seed}.npz"


def wanted(names: Iterable[str], seeds: Sequence[int]) -> list[tuple[Training, int]]:
    """Trainings and seeds of some tables, each once; the first seed of all tables comes first."""
    found: dict[tuple[Training, int], None] = {}
    for seed in seeds:
        for table in (TABLES[name] for name in names):
            if seed < table.seeds:
                found |= {(training, seed): None for training in table.cells.values()}
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
        shown = {name: f"{value:.4f}" for name, value in figures.items()} | {
            "cpu_s": f"{figures['cpu_s']:.0f}"
        }
        day = datetime.now(UTC).date().isoformat()
        row = {"training": training.name, "seed": seed, **shown, "machine": machine, "commit": _commit()}
        _append(results, RUNS, row | {"date": day})
        print(f"{shown['accuracy']}  {shown['cpu_s']} s  seed {seed}  {training.name}", flush=True)


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a CSV; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _append(path: Path, columns: Sequence[str], row: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def _commit() -> str:
    command = ["git", "-C", str(RESULTS.parents[1]), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()


def summarise(results: Path, out: Path) -> list[dict[str, Any]]:
    """A row for each cell of the tables that has results; see the head of this file."""
    known: dict[str, dict[int, float]] = {}
    for row in read(results):
        known.setdefault(row["training"], {})[int(row["seed"])] = float(row["accuracy"])
    return [
        _cell(table, name, row, column, known, out)
        for name, table in TABLES.items()
        for (row, column), training in table.cells.items()
        if training.name in known
    ]


def _cell(
    table: Table, name: str, row: str, column: str, known: Mapping[str, Mapping[int, float]], out: Path
) -> dict[str, Any]:
    training, reference = table.cells[row, column], table.cells.get((table.reference, column))
    values = known[training.name]
    right_N, first_N, second_N = _mean_right(out, training, values)
    of_all = paired_difference(np.zeros_like(right_N), right_N, first_N, second_N, RESAMPLES)
    cell = {
        "table": name,
        "row": row,
        "column": column,
        "seeds": len(values),
        "accuracy": f"{mean(values.values()):.4f}",
        "spread": f"{stdev(values.values()):.4f}" if len(values) > 1 else "",
        "low": f"{of_all.low:.4f}",
        "high": f"{of_all.high:.4f}",
    }
    common = sorted(values.keys() & known.get(reference.name, {}).keys()) if reference else []
    if reference and reference != training and common:
        ours, theirs = (_mean_right(out, one, common)[0] for one in (training, reference))
        found = paired_difference(theirs, ours, first_N, second_N, RESAMPLES)
        figures = found.value, found.low, found.high, found.p
        cell |= {key: f"{value:.4f}" for key, value in zip(COMPARED, figures, strict=True)}
    return cell


def _mean_right(out: Path, training: Training, seeds: Iterable[int]) -> tuple[FloatArray, IntArray, IntArray]:
    """Share of the seeds that decide each pair rightly, and the people of each pair."""
    loaded = [np.load(_decisions(out, training, seed)) for seed in seeds]
    return np.mean([one["right"] for one in loaded], axis=0), loaded[0]["first"], loaded[0]["second"]


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
    parser.add_argument("--summarise", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results, out = arguments.results, arguments.out
    if arguments.summarise:
        rows = summarise(results / "runs.csv", out)
        (results / "summary.csv").unlink(missing_ok=True)
        for row in rows:
            _append(results / "summary.csv", SUMMARY, row)
        return
    faces = Faces(arguments.train, arguments.lfw, arguments.pairs, out / "pixels")
    jobs = wanted(arguments.only, arguments.seeds)
    measure(jobs, faces, out, results / "runs.csv", arguments.machine, arguments.minutes)


if __name__ == "__main__":
    main()
