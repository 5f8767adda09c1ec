"""The folder of one training: every path in it, its snapshots and its metrics file."""

import json
import math
import re
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from facescale.checksums import DamageWarning, model_damage
from facescale.config.criterion import first_choice, is_better
from facescale.files import naming_full_disk, remove_unfinished, write_atomically
from facescale.guard.limits import LIST_BYTES
from facescale.guard.reading import read_bytes, read_object

_MODEL = "model.safetensors"
_STEP = re.compile(r"step_(\d{8,})")


class RunDir:
    """Paths of a run.

    ``config.toml`` (what the user wrote), ``plan.json`` (what was derived from it), ``identities.json``
    (names of the identities), ``data.safetensors`` (digest of the images), ``base.safetensors`` (the network
    that adapters belong to), ``metrics.jsonl``,
    ``checkpoints/step_N/``, ``centres/`` (placed on disk), ``tensorboard/``, ``results/`` (one file for each
    protocol and checkpoint), ``report.html``, ``features/`` (embeddings of evaluated images, may be deleted),
    ``export/``, ``bad_records.txt``.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.toml"
        self.plan = self.path / "plan.json"
        self.identities = self.path / "identities.json"
        self.data = self.path / "data.safetensors"
        self.base = self.path / "base.safetensors"
        self.metrics = self.path / "metrics.jsonl"
        self.checkpoints = self.path / "checkpoints"
        self.best_file = self.checkpoints / "best.json"
        self.rate_file = self.checkpoints / "rate.json"
        self.results = self.path / "results"
        self.centres = self.path / "centres"
        self.board = self.path / "tensorboard"
        self.report = self.path / "report.html"
        self.features = self.path / "features"
        self.exports = self.path / "export"
        self.bad_records = self.path / "bad_records.txt"
        self.lock = self.path / ".lock"

    @classmethod
    def open(cls, path: str | Path) -> "RunDir":
        """The run at ``path``.

        Raises:
            ValueError: there is no run.
        """
        run = cls(path)
        if not run.config.is_file():
            raise ValueError(
                f"{path} is not a run folder: no config.toml in it; give the folder that train made"
            )
        return run

    def create(self) -> None:
        """Make the folders, and remove what a killed process left of files that it was writing."""
        for folder in (self.checkpoints, self.results):
            folder.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.results):
            remove_unfinished(folder)

    def snapshot(self, step: int) -> Path:
        """Folder of the checkpoint after ``step`` optimizer steps."""
        return self.checkpoints / f"step_{step:08d}"

    def steps(self) -> list[int]:
        """Steps that have a complete checkpoint, ascending (a rename makes it visible when complete)."""
        if not self.checkpoints.is_dir():
            return []
        found = (_STEP.fullmatch(entry.name) for entry in self.checkpoints.iterdir() if entry.is_dir())
        return sorted(int(match[1]) for match in found if match)

    def best(self) -> dict[str, Any] | None:
        """``{"step", "name", "value"}`` of the best checkpoint so far, or None.

        Raises:
            ValueError: the note is damaged.
        """
        if not self.best_file.is_file():
            return None
        then = "delete it: the next evaluation writes it again"
        what = "the note of the best checkpoint"
        best = read_object(self.best_file, what, "step", "name", "value", advice=then)
        if not isinstance(best["step"], int) or not isinstance(best["value"], int | float):
            raise ValueError(f"cannot read {what} '{self.best_file}': its numbers are none; {then}")
        return best

    def model_path(self, which: str | int = "best") -> Path:
        """Weights of the ``best`` (else the latest) checkpoint, of the ``latest`` one, or of a given step.

        Where those of the best or latest one are damaged, the newest that are whole, with a warning.

        Raises:
            ValueError: the run has no such checkpoint, or its weights are damaged.
        """
        return self.whole(lambda folder: model_damage(folder / _MODEL), which) / _MODEL

    def whole(self, damage_of: Callable[[Path], str], which: str | int = "best") -> Path:
        """Folder of a checkpoint as in ``model_path``, but ``damage_of`` says what is wrong with one.

        Raises:
            ValueError: the run has no such checkpoint, or it is damaged.
        """
        steps = self.steps()
        if not steps:
            raise ValueError(f"the run {self.path} has no checkpoint yet; train it first")
        best = self.best() if which == "best" else None
        wanted = best["step"] if best and best["step"] in steps else steps[-1]
        if which not in ("best", "latest"):
            wanted = int(which)
        if wanted not in steps:
            raise ValueError(f"the run {self.path} has no checkpoint {which}; it has: best, latest, {steps}")
        folder = self.snapshot(wanted)
        damage = damage_of(folder)
        if not damage:
            return folder
        for step in reversed(steps) if which in ("best", "latest") else ():
            if step != wanted and not damage_of(self.snapshot(step)):
                said = f"checkpoint {folder} is damaged ({damage}); the one of step {step} is used instead"
                warnings.warn(said, DamageWarning, stacklevel=3)
                return self.snapshot(step)
        raise ValueError(
            f"checkpoint {folder} is damaged ({damage}); use another one, or restore it from a copy"
        )

    def keep_best(self, step: int, metrics: Mapping[str, Any], best_by: str = "", dead: bool = False) -> None:
        """Make ``step`` the best checkpoint if one of its figures is the best so far; the later of equals.

        Args:
            step: of the checkpoint.
            metrics: NAME/METRIC -> value; may be empty.
            best_by: the figure that decides; empty is the first accuracy, else the first that can.
            dead: the network is of no use, whatever its figures; any other one is better.

        Raises:
            ValueError: ``best_by`` was not measured.
        """
        name = best_by or first_choice(metrics)
        if name is None or not metrics:
            return
        if name not in metrics:
            raise ValueError(
                f"checkpoint.best_by = '{name}' was not measured; it must be one of: {', '.join(metrics)}"
            )
        best = self.best()
        better = best is None or best["name"] != name or best.get("dead", False)
        if better or (best and not dead and is_better(name, metrics[name], best["value"])):
            note = {"step": step, "name": name, "value": metrics[name]}
            write_atomically(self.best_file, json.dumps(note | {"dead": True} if dead else note))

    def prune(self, keep: int, interim: int | None = None, good: int | None = None) -> None:
        """Delete all but the newest ``keep`` checkpoints and the best one, and interrupted writes.

        Args:
            keep: how many.
            interim: step of one that is not counted, and deleted unless it is the newest.
            good: step of one that stays, as those after it may be of no use.
        """
        best, steps = self.best(), self.steps()
        counted = [step for step in steps if step != interim or step == steps[-1]]
        for step in {*steps} - {*counted[-keep:]} - {best["step"] if best else None, good}:
            # renamed first, so a half-deleted folder is never read
            self.snapshot(step).rename(self.checkpoints / f".old_{step}")
        for leftover in self.checkpoints.glob(".*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    def log(self, kind: str, **values: Any) -> None:
        """Append one JSON line to metrics.jsonl."""
        row = {"kind": kind, "time": round(time.time(), 3), **values}
        line = json.dumps(finite_or_null(row), allow_nan=False) + "\n"
        with naming_full_disk(self.metrics, len(line)), self.metrics.open("a", encoding="utf-8") as file:
            file.write(line)

    def read_metrics(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Lines of metrics.jsonl (of one kind); a line truncated by a crash is skipped."""
        rows = (_parsed(line) for line in self._lines())
        return [row for row in rows if row and kind in (None, row.get("kind"))]

    def _lines(self) -> list[bytes]:
        if not self.metrics.exists():
            return []
        return read_bytes(self.metrics, "the metrics", LIST_BYTES).splitlines()

    def truncate_metrics(self, step: int) -> list[str]:
        """Forget metrics after ``step``: a resumed run writes them again.

        Returns:
            A sentence if there were damaged lines besides the last, which a kill may have truncated.
        """
        damaged = sum(_parsed(line) is None for line in self._lines()[:-1])
        kept = [row for row in self.read_metrics() if row.get("step", 0) <= step]
        write_atomically(self.metrics, "".join(json.dumps(row) + "\n" for row in kept))
        return [f"{damaged} damaged lines of metrics.jsonl were left out"] if damaged else []

    def note_rate(self, step: int, factor: float) -> None:
        """Note the factor on the learning rate with which the run goes on from the checkpoint of ``step``."""
        write_atomically(self.rate_file, json.dumps({"step": step, "rate_factor": factor}))

    def noted_rate(self, step: int) -> float | None:
        """The factor noted for going on from the checkpoint of ``step``, if there is one.

        Raises:
            ValueError: the note is damaged.
        """
        if not step or not self.rate_file.is_file():
            return None
        then = "delete it to go on with the rate of the checkpoint"
        note = read_object(self.rate_file, "the note of the rate", advice=then)
        factor = note.get("rate_factor")
        if not isinstance(factor, float) or not 0 < factor <= 1:
            raise ValueError(f"'{self.rate_file}' is damaged (it names no factor from 0 to 1); {then}")
        return factor if note.get("step") == step else None

    def set_aside(self, after: int) -> None:
        """Hide the checkpoints after a step, which are damaged or diverged; ``prune`` deletes them."""
        for step in self.steps():
            if step > after:
                hidden = self.checkpoints / f".damaged_{step}"
                shutil.rmtree(hidden, ignore_errors=True)  # of an earlier time
                self.snapshot(step).rename(hidden)


def finite_or_null(row: Mapping[str, Any]) -> dict[str, Any]:
    """A line of metrics as JSON can hold it: numbers that are not finite become null and are listed."""
    bad = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
    return {**row, **dict.fromkeys(bad), "not_finite": bad} if bad else dict(row)


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of metrics.jsonl; None if it is damaged."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    is_row = (
        isinstance(row, dict) and isinstance(row.get("kind"), str) and isinstance(row.get("step", 0), int)
    )
    return row if is_row else None
