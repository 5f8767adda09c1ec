"""Loops on several threads: each row once, errors after all parts have ended."""

import threading

import pytest

from facescale.kernels.parts import in_parts


@pytest.mark.parametrize(("total", "parts"), [(10, 3), (2, 5), (1, 2), (7, 1), (0, 2)])
def test_each_row_is_in_one_part(total: int, parts: int) -> None:
    found: list[int] = []
    in_parts(lambda start, stop: found.extend(range(start, stop)), total, parts)
    assert sorted(found) == list(range(total))


def test_the_calling_thread_takes_the_first_part() -> None:
    ran: dict[int, str] = {}
    in_parts(lambda start, stop: ran.update({start: threading.current_thread().name}), 4, 2)
    assert ran[0] == threading.current_thread().name
    assert ran[2] != ran[0]


@pytest.mark.parametrize("bad", [0, 4])
def test_an_error_is_raised_when_all_parts_have_ended(bad: int) -> None:
    ended, others_wait = [], threading.Event()

    def run(start: int, stop: int) -> None:
        if start == bad:
            others_wait.set()
            raise ValueError(f"part from {start}")
        others_wait.wait(10)
        ended.append(start)

    with pytest.raises(ValueError, match=f"part from {bad}"):
        in_parts(run, 6, 3)
    assert sorted(ended) == [start for start in (0, 2, 4) if start != bad]
