"""Averages between two log lines: loss, throughput, share of time spent waiting for data."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic

import torch
from torch import Tensor


class Meter:
    """Collects steps without waiting for the device; ``flush`` and ``state`` read them.

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
        self._since = monotonic()
        self._paused_at: float | None = None

    def add(self, loss: Tensor | None, images: int, waited: float) -> None:
        """Count a step: detached loss (None if it was skipped), images, seconds waited for data."""
        if loss is not None:
            self._loss += loss
            self._finite += 1
        self._images += images
        self._waited += waited

    def flush(self) -> dict[str, float]:
        """``loss`` (mean), ``images_per_s``, ``wait_share``, ``seconds`` since the last flush."""
        seconds = max(self._seconds(), 1e-9)
        values = {
            "loss": round(float(self._loss) / self._finite, 5) if self._finite else float("nan"),
            "images_per_s": round(self._images / seconds, 1),
            "wait_share": round(self._waited / seconds, 4),
            "seconds": seconds,
        }
        self._reset()
        return values

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The time inside (evaluating, saving) is not training time."""
        self._paused_at = monotonic()
        yield
        self._since += monotonic() - self._paused_at
        self._paused_at = None

    def state(self) -> dict[str, float]:
        """What was collected since the last flush, for a checkpoint."""
        return {
            "loss": float(self._loss),
            "finite": self._finite,
            "images": self._images,
            "waited": self._waited,
            "seconds": self._seconds(),
        }

    def _seconds(self) -> float:
        return (monotonic() if self._paused_at is None else self._paused_at) - self._since

    def load_state(self, state: Mapping[str, float]) -> None:
        """Restore what ``state`` returned."""
        self._loss.fill_(state["loss"])
        self._finite, self._images = int(state["finite"]), int(state["images"])
        self._waited = state["waited"]
        self._since = monotonic() - state["seconds"]
