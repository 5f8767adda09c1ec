"""The training of a run."""

from facescale.train.loop import Result, TrainingError, train

__all__ = ["Result", "TrainingError", "train"]
