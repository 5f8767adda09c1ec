"""Write a line of metrics wherever it is wanted: metrics.jsonl, TensorBoard, the caller."""

from collections.abc import Callable
from typing import Any

from facescale.distributed import Dist
from facescale.plan import Plan
from facescale.run import RunDir
from facescale.train.checkpoint import TrainState
from facescale.train.tensorboard import open_board

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
        self._board = open_board(run.board) if dist.is_main else None

    def __call__(self, kind: str, **values: Any) -> None:
        """Write a line of this ``kind``."""
        if self._board is None:
            return
        line = {"kind": kind, "step": self._state.step, **values}
        self._run.log(**line)
        self._board(line)
        if self._on_log:
            self._on_log(line, self._plan)
