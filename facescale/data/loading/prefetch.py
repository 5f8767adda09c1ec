"""Do work ahead of its consumer, on threads and into recycled memory."""

import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from facescale.arrays import Pixels

if TYPE_CHECKING:  # torch takes seconds to import, and protocols are read and drawn without it
    from torch import Tensor

_CHUNK = 16  # images that a thread decodes in one go
BATCHES_AHEAD = 3  # batches that are decoded while the consumer works on one

Plan = TypeVar("Plan")
Result = TypeVar("Result")


def in_order(
    jobs: Iterable[tuple[Plan, list[Callable[[], Result]]]], workers: int, ahead: int
) -> Generator[tuple[Plan, list[Result]], None, None]:
    """Yield each job's plan with the results of its calls, in the order of ``jobs``.

    ``workers`` threads (0: the caller's own) work on up to ``ahead`` jobs beyond the one that is asked for;
    the calls should release the interpreter. What a call raises is raised here. The threads end with the
    generator, also when it is closed or dropped early.
    """
    if workers == 0:
        for plan, calls in jobs:
            yield plan, [call() for call in calls]
        return
    pool = ThreadPoolExecutor(workers, thread_name_prefix="facescale-data")
    waiting: deque[tuple[Plan, list[Future[Result]]]] = deque()
    try:
        for plan, calls in jobs:
            waiting.append((plan, [pool.submit(call) for call in calls]))
            if len(waiting) > ahead:
                plan, futures = waiting.popleft()
                yield plan, [future.result() for future in futures]
        while waiting:
            plan, futures = waiting.popleft()
            yield plan, [future.result() for future in futures]
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Slot:
    memory: Pixels
    user: weakref.ref[Pixels] | None = None


class Buffers:
    """uint8 tensors of one shape whose memory is reused as soon as no reference to them is left.

    Fresh memory costs a page fault per 4 KiB, which is a good part of decoding a small JPEG. A tensor that
    the consumer still holds (or a view of it) is never written to: the weak reference to the array behind
    it tells.
    """

    def __init__(self, shape: tuple[int, ...], *, pin: bool) -> None:
        self._shape = shape
        self._pin = pin
        self._slots: list[_Slot] = []

    def take(self) -> "Tensor":
        """A tensor with arbitrary content."""
        import torch

        if self._pin:  # torch keeps pinned blocks itself, until the copies to the device are through
            return torch.empty(self._shape, dtype=torch.uint8, pin_memory=True)
        for slot in self._slots:
            if slot.user is None or slot.user() is None:
                break
        else:
            slot = _Slot(np.empty(self._shape, np.uint8))
            self._slots.append(slot)
        array = slot.memory.view()
        slot.user = weakref.ref(array)
        return torch.from_numpy(array)


def chunks(count: int) -> list[range]:
    """Successive ranges of indices below ``count``, each one thread's next piece of work."""
    return [range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]
