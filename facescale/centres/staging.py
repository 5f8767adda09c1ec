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
from facescale.centres.transfers import Wait

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

    Reads ahead and writes go through one thread in the order in which they were asked for, so that a row that
    was written is never read stale, without a lock. Rows fetched ahead and written meanwhile are fetched
    again: from the buffer that is being written, or else at once, so that nobody waits for a write.

    A buffer belongs to the thread until what it reads into it is done: nothing here hands out, fills or
    forgets a buffer before that. A buffer that a device is still copying from is not filled, either
    (``hold``), and one that a device is still copying to is not written (``write``).

    Args:
        source: where the rows are.
    """

    def __init__(self, source: RowSource) -> None:
        self._source = source
        self._thread = ThreadPoolExecutor(1, "rows", _give_way)
        self._buffers: dict[str, list[Buffer]] = {}
        self._ahead: _Ahead | None = None
        self._writes: list[_Write] = []
        self._held: dict[int, Wait] = {}  # by the buffer's identity

    def hold(self, buffer: Buffer, copied: Wait) -> None:
        """Leave a buffer that ``fetch`` or ``gather`` gave as it is until it has been copied to a device."""
        self._held[id(buffer)] = copied

    def _read(self, rows: Rows, buffer: Buffer, copied: Wait | None) -> None:
        """Fill the first places of a buffer, on the thread."""
        if copied is not None:
            copied()
        self._source.read(rows, buffer)

    def fetch(self, rows: Rows, name: str) -> Buffer:
        """Rows in a buffer that stays valid until the second next call with this name."""
        ahead = self._take_ahead(rows)
        if ahead and not ahead.written:  # else some of them may be older than their row
            return ahead.buffer
        buffer = self._buffer(name, count(rows))
        if isinstance(rows, Tensor):
            self._fill(rows.numpy(), buffer, np.arange(len(rows)))
        else:
            self._thread.submit(self._read, rows, buffer, self._held.pop(id(buffer), None)).result()
        return buffer

    def gather(self, rows: Tensor, expected: Tensor | None, name: str) -> tuple[Tensor, Buffer]:
        """Ascending rows in a buffer, in the order that is returned with it.

        The order follows from ``rows`` and ``expected`` alone, whether or not anything was fetched ahead: the
        order of rows decides the order of sums, and so the last bits of a result.

        Args:
            rows: ascending.
            expected: what this call should have been preceded by a ``prefetch`` of; None is nothing.
            name: of the buffers.
        """
        wanted = rows.numpy()
        order, missing = _arranged(wanted, None if expected is None else expected.numpy())
        ahead = None if expected is None else self._take_ahead(expected, len(wanted))
        if ahead is None:
            buffer, missing = self._buffer(name, len(wanted)), np.ones(len(wanted), bool)
        else:
            buffer = ahead.buffer
            for written in ahead.written:
                missing |= _among(order, written)
        places = np.flatnonzero(missing)
        self._fill(order[places], buffer, places)
        return torch.from_numpy(order), buffer

    def _take_ahead(self, rows: Rows, room: int = 0) -> "_Ahead | None":
        """What was fetched ahead, if it is ``rows`` and its buffer has ``room``; waits for it."""
        ahead = self._ahead
        if ahead is None or not _same(ahead.rows, rows):
            return None
        self._ahead = None
        ahead.done.result()
        if len(ahead.buffer["rows"]) < room:
            return None
        pair = self._buffers[ahead.name]
        if pair[0] is not ahead.buffer:
            pair.reverse()  # now it is the one given out last
        return ahead

    def _fill(self, rows: np.ndarray, buffer: Buffer, at: np.ndarray) -> None:
        """Rows to places ``at`` of the buffer, beside the writes that are under way."""
        if copied := self._held.pop(id(buffer), None):
            copied()
        ahead = self._ahead.buffer if self._ahead else None  # is read into as soon as its write is done
        self._finish(one for one in self._writes if one.buffer is buffer or one.buffer is ahead)
        for write in [one for one in reversed(self._writes) if not one.done.done()]:
            write.ready()
            theirs = _among(rows, write.rows)
            source = torch.from_numpy(write.places[np.searchsorted(write.rows, rows[theirs])])
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
            copied = self._held.pop(id(buffer), None)
            self._ahead = _Ahead(
                name, rows, buffer, self._thread.submit(self._read, rows, buffer, copied), []
            )

    def write(self, rows: Rows, buffer: Buffer, ready: Wait = lambda: None) -> None:
        """Write a buffer that ``fetch`` or ``gather`` gave back to its rows, behind the computation.

        Args:
            rows: as they were fetched.
            buffer: their new values.
            ready: returns once the buffer holds them.
        """

        def write() -> None:
            ready()
            self._source.write(rows, buffer)

        self._finish(one for one in self._writes if one.done.done())
        done, row_R = self._thread.submit(write), numbers(rows)
        place_R = np.arange(len(row_R)) if isinstance(rows, slice) else np.argsort(row_R)
        self._writes.append(_Write(done, row_R[place_R], place_R, buffer, ready))
        if self._ahead and not isinstance(self._ahead.rows, slice) and not isinstance(rows, slice):
            self._ahead.written.append(self._writes[-1].rows)

    def forget(self) -> None:
        """Drop what was fetched ahead, wait until all is written."""
        ahead, self._ahead = self._ahead, None
        if ahead:
            ahead.done.result()
        self._finish(self._writes)

    def _finish(self, writes: Iterable["_Write"]) -> None:
        for one in list(writes):
            one.done.result()  # raises here what went wrong there
            self._writes.remove(one)

    def _buffer(self, name: str, size: int) -> Buffer:
        """The one of two buffers that was not given out last, and not one being read ahead; large enough."""
        pair = self._buffers.setdefault(name, [])
        if len(pair) < 2:
            pair.insert(0, self._source.new_buffer(size + size // 16))
            return pair[0]
        if not (self._ahead and pair[1] is self._ahead.buffer):
            pair.reverse()
        if len(pair[0]["rows"]) < size:
            self._finish(self._writes)
            if copied := self._held.pop(id(pair[0]), None):
                copied()  # before its memory is given back
            pair[0] = self._source.new_buffer(size + size // 16)
        return pair[0]


@dataclass(frozen=True, eq=False)
class _Ahead:
    """Rows on their way into a buffer, which is the thread's until ``done``; what was written since."""

    name: str
    rows: Rows
    buffer: Buffer
    done: Future[None]
    written: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class _Write:
    """Rows (ascending) on their way from places of a buffer, which keeps them until ``done``."""

    done: Future[None]
    rows: np.ndarray
    places: np.ndarray
    buffer: Buffer
    ready: Wait


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


def _same(left: Rows, right: Rows) -> bool:
    """Whether two selections of rows are the same rows in the same order."""
    if isinstance(left, Tensor) and isinstance(right, Tensor):
        return torch.equal(left, right)
    return isinstance(left, slice) and isinstance(right, slice) and left == right


def _arranged(wanted: np.ndarray, expected: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """An order of the wanted rows in which as many as possible stand where ``expected`` has them.

    Args:
        wanted: ascending.
        expected: ascending, or None for the order of ``wanted``.

    Returns:
        The rows in that order, and which places ``expected`` does not fill.
    """
    if expected is None:
        return wanted, np.ones(len(wanted), bool)
    first = expected[: len(wanted)]
    kept = _among(first, wanted)
    missing = np.ones(len(wanted), bool)
    missing[: len(first)] = ~kept
    order = np.empty_like(wanted)
    order[~missing] = first[kept]
    order[missing] = wanted[~_among(wanted, first[kept])]
    return order, missing
