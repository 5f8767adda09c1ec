"""Shows the progress of a training: a bar in a terminal, plain lines in a pipe, JSON lines on request."""

import json
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from facescale.cli.terminal import for_progress
from facescale.config.criterion import first_choice, headlines, is_better
from facescale.data.readers.pictures import listed
from facescale.guard.shown import shown_lines
from facescale.plan import Plan
from facescale.run import finite_or_null

if TYPE_CHECKING:
    from facescale.train import Result


class Display:
    """Shows log lines of ``facescale.train.train``; silent on all but the main process.

    Args:
        enabled: False on the other processes.
        as_json: print every line as JSON.
    """

    def __init__(self, enabled: bool, as_json: bool = False) -> None:
        self._enabled = enabled
        self._as_json = as_json
        self._console = Console(file=for_progress(sys.stdout), markup=False, soft_wrap=True, highlight=False)
        self._progress: Progress | None = None
        self._bar: TaskID | None = None
        if enabled and not as_json and self._console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=8),  # so that the whole line fits 80 columns
                MofNCompleteColumn(),
                TimeRemainingColumn(compact=True),
                console=self._console,
                refresh_per_second=2,
                expand=True,
            )
        self._best: float | None = None  # the figure that chooses the checkpoint

    def __enter__(self) -> "Display":
        if self._progress:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress:
            self._progress.stop()

    def line(self, values: dict[str, Any], plan: Plan) -> None:
        """Show one line of the metrics."""
        if not self._enabled:
            return
        if self._as_json:
            print(json.dumps(finite_or_null(values), allow_nan=False), flush=True)
            return
        if self._progress:
            if self._bar is None:
                self._bar = self._progress.add_task("training", total=plan.total_steps)
            self._progress.update(self._bar, completed=values["step"])
            if values["kind"] == "eval":
                name = first_choice(key for key in values if "/" in key)
                if name and (self._best is None or is_better(name, values[name], self._best)):
                    self._best = values[name]
            if values["kind"] == "train":
                self._progress.update(self._bar, description=_short_text(values, self._best))
                return
        self._console.print(shown_lines(_TEXTS[values["kind"]](values, plan)))

    def finish(self, result: "Result") -> None:
        """Print where the training stopped and how to continue."""
        if self._enabled and not self._as_json:
            if self._progress:  # so that the bar stands above the last line, not below
                self._progress.stop()
            if result.finished:
                where = shown_lines(str(result.run.path))
                self._console.print(f"trained {result.step} steps; the run is in {where}")
            else:
                self._console.print(
                    f"stopped after step {result.step}; the same command continues from there"
                )


def _short_text(v: dict[str, Any], best: float | None) -> str:
    text = (
        f"epoch {v['epoch']:.1f}  loss {v['loss']:.2f}  {v['images_per_s']:.0f} images/s  "
        f"wait {v['wait_share']:.0%}"
    )
    return text if best is None else f"{text}  best {best:.2%}"


def _train_text(v: dict[str, Any]) -> str:
    return (
        f"epoch {v['epoch']:.2f}  loss {v['loss']:.3f}  target cosine {v['target_cosine']:.3f}  "
        f"lr {v['lr']:.3g}  {v['images_per_s']:.0f} images/s  waiting for data {v['wait_share']:.0%}"
    )


def _train_line(v: dict[str, Any], plan: Plan) -> str:
    left = (
        (plan.total_steps - v["step"]) * plan.process_batch * plan.world_size / max(v["images_per_s"], 1e-9)
    )
    return f"step {v['step']}/{plan.total_steps}  {_train_text(v)}  {left / 60:.0f} min left"


def _start_line(v: dict[str, Any], plan: Plan) -> str:
    where = f"continuing at step {v['step']}" if v["step"] else "starting"
    return (
        f"{plan.summary()}; {where}"
        + (
            f"; {singles} identities have one image only"
            if (singles := v.get("single_image_identities"))
            else ""
        )
        + (
            f"; {known} of {plan.num_ids} identities take their class centre from train.init"
            + ("" if known else " (it has none for their names), which gives the network alone")
            if (known := v.get("known_identities")) is not None
            else ""
        )
        + (f"; files passed over: {listed(others)}" if (others := v.get("passed_over")) else "")
        + (f"\nattention: {length}" if (length := v.get("new_length")) else "")
        + "".join(f"\nattention: {note}" for note in v.get("notes", ()))
    )


def _eval_line(v: dict[str, Any], plan: Plan) -> str:
    chosen = headlines(key for key in v if "/" in key)
    accuracies = [key.removesuffix("/accuracy") for key in chosen if key.endswith("/accuracy")]
    shown = [f"{n} {v[n + '/accuracy']:.2%} +- {v[n + '/accuracy_std']:.2%}" for n in accuracies]
    parts = [f"accuracy: {', '.join(shown)}"] if shown else []
    for key in chosen:
        name, _, figure = key.rpartition("/")
        if figure != "accuracy":
            parts.append(f"{name}: {figure} {v[key]:.2%}")
    return f"step {v['step']}/{plan.total_steps}  {'  '.join(parts)}"


def _health_line(v: dict[str, Any], plan: Plan) -> str:
    return f"step {v['step']}/{plan.total_steps}  attention: {v['message']}"


def _bad_line(v: dict[str, Any], plan: Plan) -> str:
    where = f"step {v['step']}/{plan.total_steps}"
    return f"{where}  not finite, skipped: loss {v['loss']}, gradient {v['grad_norm']}"


_TEXTS = {
    "start": _start_line,
    "train": _train_line,
    "eval": _eval_line,
    "health": _health_line,
    "bad_step": _bad_line,
    "roll_back": _health_line,
}
