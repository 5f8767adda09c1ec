"""Write a line of metrics wherever it is wanted: metrics.jsonl, TensorBoard, the caller."""

from collections.abc import Callable
from typing import Any

from facescale.data.loading.batch import Batch
from facescale.distributed import Dist
from facescale.plan import Plan
from facescale.run import RunDir
from facescale.train.checkpoint import TrainState
from facescale.train.task import RecognitionTask
from facescale.train.tensorboard import Board
from facescale.train.trackers import settings_of

_SHOWN = 16  # images of a batch

OnLog = Callable[[dict[str, Any], Plan], None]


class RunLog:
    """Callable: one line of metrics at the present step; does nothing except on the main process.

    Args:
        run: the run folder.
        plan: given to ``on_log``.
        state: says the step.
        dist: this process among its peers.
        on_log: called with every line.
    """

    def __init__(self, run: RunDir, plan: Plan, state: TrainState, dist: Dist, on_log: OnLog | None) -> None:
        self._run, self._plan, self._state, self._on_log = run, plan, state, on_log
        self._board = Board(run.board) if dist.is_main else None

    def __call__(self, kind: str, **values: Any) -> None:
        """Write a line of this ``kind``."""
        if self._board is None:
            return
        line = {"kind": kind, "step": self._state.step, **values}
        self._run.log(**line)
        self._board(line)
        if kind == "start":
            self._board.settings(settings_of(self._run), ["train/loss"])
        if self._on_log:
            self._on_log(line, self._plan)

    def show_batch(self, task: RecognitionTask, batch: Batch) -> None:
        """Show some images of a batch as the network sees them, in TensorBoard."""
        if self._board is not None:
            some = next(batch.split(_SHOWN))
            self._board.images("train/augmented", task.augmented_images(some).cpu(), self._state.step)
