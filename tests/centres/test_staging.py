"""Rows on their way: the order in which they come, and that no buffer is used while it is being filled."""

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from facescale.centres.layout import Rows, numbers
from facescale.centres.staging import Stage

N = 200


class SlowRows:
    """Rows 0..N-1 of one number; reads on the stage's thread wait until they are let go."""

    def __init__(self) -> None:
        self.values = torch.arange(N, dtype=torch.float32)[:, None].clone()
        self.go = threading.Event()
        self._caller = threading.current_thread()

    def new_buffer(self, num_rows: int) -> dict[str, Tensor]:
        return {"rows": torch.full((num_rows, 1), -1.0)}

    def read(self, rows: Rows, buffer: dict[str, Tensor], at: Tensor | None = None) -> None:
        if threading.current_thread() is not self._caller:
            assert self.go.wait(20)
        row = torch.from_numpy(numbers(rows))
        buffer["rows"][torch.arange(len(row)) if at is None else at] = self.values[row]

    def write(self, rows: Rows, buffer: dict[str, Tensor]) -> None:
        row = torch.from_numpy(numbers(rows))
        self.values[row] = buffer["rows"][: len(row)]


def later(event: threading.Event) -> None:
    threading.Timer(0.05, event.set).start()


@pytest.mark.parametrize("wanted", [list(range(0, 60, 3)), list(range(0, 190, 2))])  # fits its buffer or not
def test_rows_fetched_ahead_and_not_used_do_not_overwrite_others(wanted: list[int]) -> None:
    source = SlowRows()
    stage = Stage(source)
    stage.prefetch(torch.arange(0, 60, 2), "gather")  # still under way below
    later(source.go)
    for _ in range(4):  # both buffers are given out while it is
        order, buffer = stage.gather(torch.tensor(wanted), torch.tensor(wanted), "gather")
        assert buffer["rows"][: len(order), 0].tolist() == order.tolist()
        stage.write(order, buffer)
    stage.forget()
    assert source.values[:, 0].tolist() == list(range(N))


def test_a_larger_demand_than_the_buffer_waits_for_what_is_under_way() -> None:
    source = SlowRows()
    stage = Stage(source)
    ahead = torch.arange(0, 60, 2)
    stage.prefetch(ahead, "gather")
    later(source.go)
    wanted = torch.arange(0, 150)
    order, buffer = stage.gather(wanted, ahead, "gather")
    assert buffer["rows"][: len(order), 0].tolist() == order.tolist()
    assert sorted(order.tolist()) == wanted.tolist()


@pytest.mark.parametrize("case", ["ahead", "nothing ahead", "small buffers", "written meanwhile"])
def test_the_order_of_rows_follows_from_the_step_alone(case: str) -> None:
    """Not from what was fetched before, nor from the size of the buffers."""
    wanted, expected = torch.arange(1, 160, 3), torch.arange(0, 150, 2)
    order = torch.from_numpy(np.array(_order(lambda stage: None, wanted, expected)))

    def prepare(stage: Stage) -> None:
        if case == "small buffers":
            stage.fetch(torch.arange(3), "gather")
            stage.fetch(torch.arange(4), "gather")
        if case != "nothing ahead":
            stage.prefetch(expected, "gather")
        if case == "written meanwhile":
            rows = torch.arange(0, 40)
            stage.write(rows, stage.fetch(rows, "other"))

    assert _order(prepare, wanted, expected) == order.tolist()
    assert order.tolist() != wanted.tolist()


def _order(prepare: Callable[[Stage], None], wanted: Tensor, expected: Tensor) -> list[int]:
    source = SlowRows()
    source.go.set()
    stage = Stage(source)
    prepare(stage)
    order, buffer = stage.gather(wanted, expected, "gather")
    assert buffer["rows"][: len(order), 0].tolist() == order.tolist()
    return order.tolist()


def test_rows_written_after_they_were_fetched_ahead_are_read_again() -> None:
    source = SlowRows()
    stage = Stage(source)
    ahead = torch.arange(0, 50)
    stage.prefetch(ahead, "gather")
    rows = torch.arange(10, 20)
    buffer = stage.fetch(rows, "other")
    buffer["rows"][:10] = 1000.0
    stage.write(rows, buffer)
    later(source.go)
    order, buffer = stage.gather(torch.arange(0, 50, 5), ahead, "gather")
    assert buffer["rows"][: len(order), 0].tolist() == [1000.0 if 10 <= r < 20 else r for r in order.tolist()]


def test_rows_in_use_are_not_what_is_read_ahead_into() -> None:
    """Three gathers in a step (two batches, then all rows that move), one prefetch: as accumulation does."""
    source = SlowRows()
    source.go.set()
    stage = Stage(source)
    for step in range(6):
        expected = torch.arange(step, 60 + step)
        following = torch.arange(step + 1, 61 + step)
        for wanted in (torch.arange(step, 55), torch.arange(step, 80), torch.arange(step, 120)):
            order, buffer = stage.gather(wanted, expected, "gather")
            stage.prefetch(following, "gather")
            source.go.wait(20)
            assert buffer["rows"][: len(order), 0].tolist() == order.tolist()
        stage.write(order, buffer)
    stage.forget()
    assert source.values[:, 0].tolist() == list(range(N))
