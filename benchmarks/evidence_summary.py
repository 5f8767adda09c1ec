"""Mean over seeds of the light trainings, with what is uncertain about it, for each cell of a table.

A difference compares with the table's reference row on the same pairs, with the seeds that both have. Its
interval is that of a bootstrap over people, of right decisions averaged over the seeds: it says how much the
choice of the test's people matters, the lowest and the highest seed say how much a training does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import numpy as np
from evidence import decisions, read
from evidence_cases import TABLES, Table, Training

from facescale.arrays import FloatArray, IntArray
from facescale.evaluate.significance import paired_difference

RESAMPLES = 1000  # of the people
ACCURACY = ("accuracy", "seed_low", "seed_high", "low", "high")
DIFFERENCE = (
    "difference",
    "difference_seed_low",
    "difference_seed_high",
    "difference_low",
    "difference_high",
    "p",
)
SUMMARY = ("table", "row", "column", "seeds", *ACCURACY, "difference_seeds", *DIFFERENCE)


@dataclass(frozen=True)
class Runs:
    """What has been trained.

    Attributes:
        accuracies: name of a training -> seed -> accuracy.
        out: folder with its decisions.
    """

    accuracies: Mapping[str, Mapping[int, float]]
    out: Path

    @classmethod
    def of(cls, results: Path, out: Path) -> "Runs":
        """The lines of a CSV that ``evidence.py`` wrote."""
        accuracies: dict[str, dict[int, float]] = {}
        for row in read(results):
            accuracies.setdefault(row["training"], {})[int(row["seed"])] = float(row["accuracy"])
        return cls(accuracies, out)

    def seeds(self, training: Training) -> Mapping[int, float]:
        """Accuracy by seed."""
        return self.accuracies.get(training.name, {})

    def right(self, training: Training, seeds: Sequence[int]) -> tuple[FloatArray, IntArray, IntArray]:
        """Share of the seeds that decide each pair rightly, and the two people of each pair."""
        loaded = [np.load(decisions(self.out, training, seed)) for seed in seeds]
        return np.mean([one["right"] for one in loaded], axis=0), loaded[0]["first"], loaded[0]["second"]


def summarise(runs: Runs) -> list[dict[str, str]]:
    """A row for each cell of the tables that has results."""
    return [
        {"table": name, "row": row, "column": column} | _figures(table, row, column, runs)
        for name, table in TABLES.items()
        for (row, column), training in table.cells.items()
        if runs.seeds(training)
    ]


def _figures(table: Table, row: str, column: str, runs: Runs) -> dict[str, str]:
    training, reference = table.cells[row, column], table.cells.get((table.reference, column))
    ours = runs.seeds(training)
    right_N, first_N, second_N = runs.right(training, list(ours))
    found = paired_difference(np.zeros_like(right_N), right_N, first_N, second_N, RESAMPLES)
    figures = (mean(ours.values()), min(ours.values()), max(ours.values()), found.low, found.high)
    cell = {"seeds": str(len(ours))} | _shown(ACCURACY, figures)
    if reference is None or reference == training:
        return cell
    theirs = runs.seeds(reference)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        return cell
    right_N, reference_N = (runs.right(one, common)[0] for one in (training, reference))
    found = paired_difference(reference_N, right_N, first_N, second_N, RESAMPLES)
    gains = [ours[seed] - theirs[seed] for seed in common]
    figures = (found.value, min(gains), max(gains), found.low, found.high, found.p)
    return cell | {"difference_seeds": str(len(common))} | _shown(DIFFERENCE, figures)


def _shown(names: Sequence[str], values: Sequence[float]) -> dict[str, str]:
    return {name: f"{value:.4f}" for name, value in zip(names, values, strict=True)}
