"""Show metrics in TensorBoard, where it is installed (extra ``tensorboard``)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def open_board(folder: Path) -> Callable[[Mapping[str, Any]], None]:
    """A function to call with every line of metrics.jsonl; it does nothing without TensorBoard."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return lambda line: None
    writer = SummaryWriter(str(folder))

    def show(line: Mapping[str, Any]) -> None:
        for key, value in line.items():
            if key != "step" and isinstance(value, int | float):
                writer.add_scalar(f"{line['kind']}/{key}", value, line["step"])
        writer.flush()

    return show
