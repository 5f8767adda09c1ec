"""The training of a run."""

from facescale.train.loop import Result, train
from facescale.train.watchdog import TrainingError

__all__ = ["Result", "TrainingError", "train"]
