"""Averages between two log lines: loss, throughput, share of time spent waiting for data."""

import time

import torch
from torch import Tensor


class Meter:
    """Collects steps without waiting for the device; ``flush`` reads them.

    Args:
        device: where the losses live.
    """

    def __init__(self, device: torch.device) -> None:
        self._loss = torch.zeros((), device=device)
        self._reset()

    def _reset(self) -> None:
        self._loss.zero_()
        self._finite = 0
        self._images = 0
        self._waited = 0.0
        self._since = time.monotonic()

    def add(self, loss: Tensor | None, images: int, waited: float) -> None:
        """Count a step: detached loss (None if it was skipped), images, seconds waited for data."""
        if loss is not None:
            self._loss += loss
            self._finite += 1
        self._images += images
        self._waited += waited

    def flush(self) -> dict[str, float]:
        """``loss`` (mean), ``images_per_s``, ``wait_share``, ``seconds`` since the last flush."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        values = {
            "loss": round(float(self._loss) / self._finite, 5) if self._finite else float("nan"),
            "images_per_s": round(self._images / seconds, 1),
            "wait_share": round(self._waited / seconds, 4),
            "seconds": seconds,
        }
        self._reset()
        return values
