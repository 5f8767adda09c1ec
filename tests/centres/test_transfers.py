"""Copies to and from a device: at once on a CPU; on a second stream elsewhere, in an order that is right."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor

from facescale.centres.staging import Buffer, Stage
from facescale.centres.transfers import Transfers

CPU = torch.device("cpu")


class Stream:
    """A queue of work that is done when somebody waits for it: the latest moment at which a GPU may do it."""

    def __init__(self) -> None:
        self.work: list[Callable[[], object]] = []

    def record_event(self) -> "Event":
        return Event(self, len(self.work))

    def wait_event(self, event: "Event") -> None:
        self.work.append(event.synchronize)

    def wait_stream(self, other: "Stream") -> None:
        self.wait_event(other.record_event())


class Event:
    def __init__(self, stream: Stream, upto: int) -> None:
        self.stream, self.upto = stream, upto

    def synchronize(self) -> None:
        """Do what was asked for before the event, once."""
        for place in range(self.upto):
            done, self.stream.work[place] = self.stream.work[place], lambda: None
            done()


class Device:
    """Two streams; copies inside ``torch.cuda.stream(one)`` wait in its queue.

    They are done at the latest moment, or ``early``: as soon as what they wait for is done.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, early: bool) -> None:
        self.computation, self.copies = Stream(), Stream()
        self._inside: Stream | None = None
        copy = Tensor.copy_

        def copied(into: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
            if self._inside is None or not non_blocking:
                return copy(into, source)
            self._inside.work.append(lambda: copy(into, source))
            if early:
                self._inside.record_event().synchronize()
            return into

        @contextmanager
        def inside(stream: Stream) -> Iterator[None]:
            self._inside = stream
            yield
            self._inside = None

        monkeypatch.setattr(Tensor, "copy_", copied)
        monkeypatch.setattr(Tensor, "record_stream", lambda tensor, stream: None)
        monkeypatch.setattr(torch.cuda, "stream", inside)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device: self.computation)

    def transfers(self) -> Transfers:
        made = Transfers(CPU)
        made._stream = self.copies  # type: ignore[assignment]
        return made

    def compute(self, work: Callable[[], object]) -> None:
        self.computation.work.append(work)

    def finish(self) -> None:
        self.computation.record_event().synchronize()
        self.copies.record_event().synchronize()


@pytest.fixture(params=["late", "early"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch, early=request.param == "early")


def test_on_a_cpu_a_copy_is_done_at_once() -> None:
    here, there = torch.zeros(3), torch.arange(3.0)
    Transfers(CPU).to_device([(here, there)])()
    assert here.tolist() == [0, 1, 2]
    Transfers(CPU).to_host([(there, here + 1)])()
    assert there.tolist() == [1, 2, 3]


def test_the_computation_sees_what_was_copied_before_it_and_not_what_comes_later(device: Device) -> None:
    transfers, room, seen = device.transfers(), torch.zeros(2), []
    for number in range(4):
        transfers.to_device([(room, torch.full((2,), float(number)))])
        device.compute(lambda: seen.append(room.tolist()))
    device.finish()
    assert seen == [[float(n)] * 2 for n in range(4)]


def test_chunks_in_turn_are_not_overwritten_while_they_are_used(device: Device) -> None:
    transfers, rooms, seen = device.transfers(), [torch.zeros(1), torch.zeros(1)], []
    for number in range(6):
        room = rooms[number % 2]
        transfers.to_device([(room, torch.tensor([float(number)]))], alternating=True)
        device.compute(lambda room=room: seen.append(float(room)))
    device.finish()
    assert seen == [0, 1, 2, 3, 4, 5]


def test_the_host_gets_what_the_computation_made(device: Device) -> None:
    transfers, row, host = device.transfers(), torch.zeros(2), torch.zeros(2)
    device.compute(lambda: row.add_(5))
    transfers.to_host([(host, row)])()
    assert host.tolist() == [5, 5]


class Rows:
    """Rows in memory, as ``MemoryRows`` has them; ``read`` and ``write`` are noted."""

    def __init__(self, num_rows: int) -> None:
        self.rows = torch.arange(float(num_rows))[:, None].clone()

    def new_buffer(self, num_rows: int) -> Buffer:
        return {"rows": torch.zeros(num_rows, 1)}

    def read(self, rows: Any, buffer: Buffer, at: Tensor | None = None) -> None:
        values = self.rows[rows]
        buffer["rows"][slice(0, len(values)) if at is None else at] = values

    def write(self, rows: Any, buffer: Buffer) -> None:
        values = self.rows[rows]
        self.rows[rows] = buffer["rows"][: len(values)].clone()


def test_a_buffer_is_not_filled_while_the_device_copies_from_it(device: Device) -> None:
    transfers, stage, copied = device.transfers(), Stage(Rows(40)), []
    for start in range(0, 40, 4):
        buffer = stage.fetch(slice(start, start + 4), "open")
        room = torch.zeros(4, 1)
        copied.append(room)
        stage.hold(buffer, transfers.to_device([(room, buffer["rows"][:4])]))
        stage.prefetch(slice(start + 4, start + 8), "open")
    device.finish()
    assert torch.cat(copied)[:, 0].tolist() == list(range(40))


def test_rows_are_written_once_the_device_has_copied_them(device: Device) -> None:
    transfers, source = device.transfers(), Rows(12)
    stage = Stage(source)
    for start in range(0, 12, 4):
        rows = slice(start, start + 4)
        buffer, room = stage.fetch(rows, "open"), torch.zeros(4, 1)
        stage.hold(buffer, transfers.to_device([(room, buffer["rows"][:4])]))
        device.compute(lambda room=room: room.mul_(10))
        stage.write(rows, buffer, transfers.to_host([(buffer["rows"][:4], room)]))
    again = stage.fetch(torch.arange(12), "other")["rows"][:12, 0].tolist()  # behind the writes under way
    stage.forget()
    assert source.rows[:, 0].tolist() == again == [10.0 * n for n in range(12)]
