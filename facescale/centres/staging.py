"""Fetch rows ahead of time and write them back behind the computation, on one thread."""

import os
import sys
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from facescale.centres.layout import BLOCK, Rows, count, numbers

# R rows at hand

Buffer = dict[str, Tensor]


class RowSource(Protocol):
    """Where rows come from: MemoryRows or DiskRows."""

    def new_buffer(self, num_rows: int) -> Buffer:
        """Tensors for ``num_rows`` rows."""

    def read(self, rows: Rows, buffer: Buffer, at: Tensor | None = None) -> None:
        """Copy rows into the buffer."""

    def write(self, rows: Rows, buffer: Buffer) -> None:
        """Copy the buffer into rows."""


class Stage:
    """Buffers between a slow row source and the computation.

    Reads and writes go through one thread in the order in which they were asked for, so that a row that was
    written is never read stale, without a lock. Rows fetched ahead and written meanwhile are fetched again:
    from the buffer that is being written, or else at once, so that nobody waits for a write.

    Args:
        source: where the rows are.
    """

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(1, "rows", _give_way)
        self._buffers: dict[str, list[Buffer]] = {}
        self._ahead: tuple[Rows, Buffer, Future[None]] | None = None
        self._written: list[np.ndarray] = []  # since the rows ahead were asked for
        self._writes: list[_Write] = []

    def fetch(self, rows: Rows, name: str) -> Buffer:
        """Rows in a buffer that stays valid until the second next call with this name."""
        if self._ahead and isinstance(rows, slice) and self._ahead[0] == rows:
            _, buffer, done = self._ahead
            self._ahead = None
        else:
            buffer = self._buffer(name, count(rows))
            if isinstance(rows, Tensor):
                self._finish(one for one in self._writes if one.buffer is buffer)
                self._fill(rows.numpy(), buffer, np.arange(len(rows)))
                return buffer
            done = self._thread.submit(self._source.read, rows, buffer)
        done.result()
        return buffer

    def gather(self, rows: Tensor, name: str) -> tuple[Tensor, Buffer]:
        """Ascending rows in a buffer, in the order that is returned with it; uses what was fetched ahead."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or isinstance(ahead[0], slice) or len(ahead[1]["rows"]) < len(rows):
            return rows, self.fetch(rows, name)
        old_rows, buffer, done = ahead
        assert isinstance(old_rows, Tensor)
        wanted, old = rows.numpy(), old_rows.numpy()[: len(rows)]
        keep = _among(old, wanted)
        for written in self._written:
            keep &= ~_among(old, written)
        missing = wanted[~_among(wanted, old[keep])]
        places = np.ones(len(wanted), bool)
        places[: len(old)] = ~keep
        holes = np.flatnonzero(places)
        order = np.empty_like(wanted)
        order[np.flatnonzero(~places)] = old[keep]
        order[holes] = missing
        done.result()
        self._fill(missing, buffer, holes)
        return torch.from_numpy(order), buffer

    def _fill(self, rows: np.ndarray, buffer: Buffer, at: np.ndarray) -> None:
        """Rows to places ``at`` of the buffer, beside the writes that are under way."""
        for write in [one for one in reversed(self._writes) if not one.done.done()]:
            order = np.argsort(write.rows)
            theirs = _among(rows, write.rows[order])
            source = torch.from_numpy(order[np.searchsorted(write.rows[order], rows[theirs])])
            names = ("record",) if "record" in buffer else tuple(buffer)  # the others are views of it
            into = torch.from_numpy(at[theirs])
            for here, there in zip(into.split(BLOCK), source.split(BLOCK), strict=True):
                for name in names:
                    buffer[name][here] = write.buffer[name][there]
            rows, at = rows[~theirs], at[~theirs]
        self._source.read(torch.from_numpy(rows), buffer, torch.from_numpy(at))

    def prefetch(self, rows: Rows, name: str) -> None:
        """Start to read rows (ascending) for the next ``fetch`` or ``gather``, if none are on their way."""
        if self._ahead is None:
            buffer = self._buffer(name, count(rows))
            self._written = []
            self._ahead = rows, buffer, self._thread.submit(self._source.read, rows, buffer)

    def write(self, rows: Rows, buffer: Buffer) -> None:
        """Write a buffer that ``fetch`` or ``gather`` gave back to its rows, behind the computation."""
        self._finish(one for one in self._writes if one.done.done())
        done = self._thread.submit(self._source.write, rows, buffer)
        self._writes.append(_Write(done, numbers(rows), buffer))
        if self._ahead and not isinstance(self._ahead[0], slice) and not isinstance(rows, slice):
            self._written.append(np.sort(rows.numpy()))

    def forget(self) -> None:
        """Drop what was fetched ahead, wait until all is written."""
        if self._ahead:
            self._ahead[2].result()
            self._ahead = None
        self._finish(self._writes)

    def _finish(self, writes: Iterable["_Write"]) -> None:
        for one in list(writes):
            one.done.result()  # raises here what went wrong there
            self._writes.remove(one)

    def _buffer(self, name: str, size: int) -> Buffer:
        """The one of two buffers that was not given out last; large enough."""
        pair = self._buffers.setdefault(name, [])
        if len(pair) == 2:
            pair.reverse()
            if len(pair[0]["rows"]) < size:
                self._finish(self._writes)
                pair[0] = self._source.new_buffer(size + size // 16)
        else:
            pair.insert(0, self._source.new_buffer(size + size // 16))
        return pair[0]


@dataclass(frozen=True, eq=False)
class _Write:
    """Rows on their way from a buffer, which keeps them until ``done``."""

    done: Future[None]
    rows: np.ndarray
    buffer: Buffer


def _give_way() -> None:
    """Let this thread have what the computation leaves, which waits for its own threads, hardly for this."""
    if sys.platform == "linux":  # elsewhere it would be the process
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _among(values: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """Which values occur in an ascending array."""
    if len(ascending) == 0:
        return np.zeros(len(values), bool)
    place = np.searchsorted(ascending, values)
    return np.asarray(ascending[np.minimum(place, len(ascending) - 1)] == values)
