"""Show a run in Weights & Biases or MLflow: views of metrics.jsonl, written beside training or afterwards."""

import hashlib
import importlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from facescale.config import load_config
from facescale.registry import lookup
from facescale.run import RunDir

Line = Mapping[str, Any]
Show = Callable[[Line], None]
PROJECT = "facescale"


def settings_of(run: RunDir) -> dict[str, Any]:
    """Keys of the run's config with their values, as trackers want them: flat, and no lists."""
    return dict(_flat(load_config(run.config).model_dump(mode="json")))


def numbers_of(line: Line) -> dict[str, float]:
    """KIND/KEY -> number, of the numbers in a line of metrics.jsonl."""
    return {
        f"{line['kind']}/{key}": value
        for key, value in line.items()
        if key not in ("step", "time") and isinstance(value, int | float) and not isinstance(value, bool)
    }


@contextmanager
def wandb_view(run: RunDir) -> Iterator[Show]:
    """Show lines in Weights & Biases; ``WANDB_MODE=offline`` keeps them in the run folder.

    The run has one identity there, so that a resumed training continues it.

    Raises:
        ValueError: wandb is not installed.
    """
    wandb = _module("wandb")
    shown = wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        name=run.path.name,
        id=_identity(run),
        resume="allow",
        dir=str(run.path),
        config=settings_of(run),
    )
    try:
        yield lambda line: shown.log(numbers_of(line), step=line["step"])
    finally:
        shown.finish()


@contextmanager
def mlflow_view(run: RunDir) -> Iterator[Show]:
    """Show lines in MLflow: at ``MLFLOW_TRACKING_URI``, else in ``mlflow.db`` of the run folder.

    Raises:
        ValueError: mlflow is not installed.
    """
    mlflow = _module("mlflow")
    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{(run.path / 'mlflow.db').absolute()}")
    experiment = mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
    known = mlflow.search_runs(
        [experiment.experiment_id], f"tags.facescale_run = '{_identity(run)}'", output_format="list"
    )
    number = known[0].info.run_id if known else None
    with mlflow.start_run(run_id=number, run_name=run.path.name, tags={"facescale_run": _identity(run)}):
        if number is None:
            mlflow.log_params(settings_of(run))

        def show(line: Line) -> None:
            # Names may hold letters, digits and a few signs there; tar@far=0.01 becomes tar_far_0.01.
            numbers = {re.sub(r"[^\w\-. /]", "_", key): value for key, value in numbers_of(line).items()}
            mlflow.log_metrics(numbers, step=line["step"])

        yield show


TRACKERS: dict[str, Callable[[RunDir], Any]] = {"wandb": wandb_view, "mlflow": mlflow_view}


class Tracking:
    """Callable, as ``on_log`` of a training: shows each line in the trackers, which open with the first one.

    Args:
        run: the run folder.
        names: keys of ``TRACKERS``.

    Raises:
        ValueError: an unknown tracker, or one that is not installed.
    """

    def __init__(self, run: RunDir, names: Sequence[str]) -> None:
        self._run, self._views = run, [lookup("tracker", TRACKERS, name) for name in names]
        for name in names:
            _module(name)  # before hours of training, not after
        self._opened: list[Show] = []
        self._stack = ExitStack()

    def __call__(self, line: Line) -> None:
        """Show a line of metrics.jsonl."""
        if not self._opened:
            self._opened = [self._stack.enter_context(view(self._run)) for view in self._views]
        for show in self._opened:
            show(line)

    def close(self) -> None:
        """Send what is left."""
        self._stack.close()


def track(path: Path, names: Sequence[str]) -> int:
    """Show a run that is trained already; returns the number of lines.

    Raises:
        ValueError: no run, nothing logged, an unknown tracker, or one that is not installed.
    """
    run = RunDir.open(path)
    rows = run.read_metrics()
    if not rows:
        raise ValueError(f"the run '{path}' has logged nothing yet; train it first")
    tracking = Tracking(run, names)
    for row in rows:
        tracking(row)
    tracking.close()
    return len(rows)


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise ValueError(
            f"{name} is not installed; install it with: pip install 'facescale[{name}]'"
        ) from None


def _identity(run: RunDir) -> str:
    return hashlib.sha256(str(run.path.absolute()).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value) if isinstance(value, list | tuple) or value is None else value
