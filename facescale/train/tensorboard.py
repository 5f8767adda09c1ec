"""Show metrics, settings and augmented images in TensorBoard, if installed (extra ``tensorboard``)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor


class Board:
    """A folder that TensorBoard reads; without TensorBoard nothing happens.

    Args:
        folder: where the events go.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer: Any = None
        else:
            self._writer = SummaryWriter(str(folder))

    def __call__(self, line: Mapping[str, Any]) -> None:
        """Show the numbers of a line of metrics.jsonl."""
        if self._writer is None:
            return
        for key, value in line.items():
            if key != "step" and isinstance(value, int | float):
                self._writer.add_scalar(f"{line['kind']}/{key}", value, line["step"])
        self._writer.flush()

    def settings(self, values: Mapping[str, Any], figures: list[str]) -> None:
        """Show the settings of the run in the tab of hyper-parameters, beside these figures."""
        if self._writer is None:
            return
        from torch.utils.tensorboard.summary import hparams

        kept = {key: x if isinstance(x, bool | int | float | str) else str(x) for key, x in values.items()}
        for part in hparams(kept, dict.fromkeys(figures, 0.0)):
            self._writer.file_writer.add_summary(part)
        self._writer.flush()

    def images(self, name: str, images_BHW3: Tensor, step: int) -> None:
        """Show uint8 RGB images (B, H, W, 3)."""
        if self._writer is not None:
            self._writer.add_images(name, images_BHW3, step, dataformats="NHWC")
            self._writer.flush()
