"""Copies of rows between host memory and a GPU, on a stream of their own beside the computation."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Wait = Callable[[], None]
"""Returns once a copy is done; any thread may call it, any number of times."""


def _nothing() -> None:
    """What was copied at once is there."""


class Transfers:
    """Copies to and from a device; on a CPU they are plain ones, done when the call returns.

    On a GPU a copy runs on a second stream. It begins when the computation has got past what it overwrites,
    and the computation goes on behind it: the host waits for neither. Host memory must stay as it is until
    the ``Wait`` that is returned has been called.

    Args:
        device: where rows are computed with.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream: torch.cuda.Stream | None = None  # made at the first copy: plans need none
        self._last: torch.cuda.Event | None = None  # the computation as it was asked for at the last copy
        self._known: set[int] = set()  # addresses that were copied to before

    def to_device(self, pairs: Sequence[tuple[Tensor, Tensor]], alternating: bool = False) -> Wait:
        """Copy into tensors of the device, for what the computation is asked for next.

        Args:
            pairs: (into, from host memory).
            alternating: what is overwritten was last used before the call before this one, as there are two
                of it in turn: the copy runs beside what the computation does between these calls.
        """
        stream = self._second_stream()
        if stream is None:
            for into, source in pairs:
                into.copy_(source)
            return _nothing
        computation = torch.cuda.current_stream(self._device)
        now = computation.record_event()
        # memory that is new here may be in use by what was asked for before it was freed
        known = all(into.data_ptr() in self._known for into, _ in pairs)
        stream.wait_event(self._last if alternating and known and self._last is not None else now)
        with torch.cuda.stream(stream):
            for into, source in pairs:
                into.copy_(source, non_blocking=True)
        done = stream.record_event()
        computation.wait_event(done)
        self._last = now
        self._known.update(into.data_ptr() for into, _ in pairs)
        wait: Wait = done.synchronize
        return wait

    def to_host(self, pairs: Sequence[tuple[Tensor, Tensor]]) -> Wait:
        """Copy into tensors of host memory what the computation was asked for so far.

        Args:
            pairs: (into, from the device). Of these, nothing but a copy of this object may overwrite one.
        """
        stream = self._second_stream()
        if stream is None:
            for into, source in pairs:
                into.copy_(source)
            return _nothing
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            for into, source in pairs:
                into.copy_(source, non_blocking=True)
                source.record_stream(stream)
        wait: Wait = stream.record_event().synchronize
        return wait

    def _second_stream(self) -> torch.cuda.Stream | None:
        """The stream of the copies; None on a CPU."""
        if self._stream is None and self._device.type == "cuda":
            self._stream = torch.cuda.Stream(self._device)
        return self._stream
