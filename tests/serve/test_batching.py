"""Requests that share a call of the network each get their own embeddings, or their own error."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from facescale.serve.batching import SharedCalls


class Slow:
    """The first pixel as embedding; fails on a value of 255, and tells how it was called."""

    def __init__(self, seconds: float = 0.005) -> None:
        self.seconds, self.sizes = seconds, list[int]()
        self._alone = threading.Lock()

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        assert self._alone.acquire(blocking=False), "two calls at a time"
        try:
            self.sizes.append(len(faces))
            time.sleep(self.seconds)
            if (faces == 255).any():
                raise ValueError("a face that cannot be embedded")
            return faces[:, 0, 0, :1].astype(np.float32)
        finally:
            self._alone.release()


def faces(*values: int, side: int = 2) -> np.ndarray:
    return np.stack([np.full((side, side, 3), value, np.uint8) for value in values])


def test_one_request_is_one_call() -> None:
    slow = Slow()
    assert SharedCalls(slow)(faces(3, 4)).tolist() == [[3], [4]]
    assert slow.sizes == [2]


def test_what_waits_while_a_call_runs_shares_the_next_ones() -> None:
    slow = Slow()

    def first_waits(faces: np.ndarray) -> np.ndarray:
        stop = time.monotonic() + 60
        while not slow.sizes and len(faces) + len(shared._queue) < 32 and time.monotonic() < stop:
            time.sleep(0.001)
        return slow(faces)

    shared = SharedCalls(first_waits, most=16)
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(lambda value: shared(faces(value)).item(), range(32))) == list(range(32))
    assert sum(slow.sizes) == 32 and len(slow.sizes) <= 3


def test_200_requests_of_32_threads_get_their_own_rows() -> None:
    slow = Slow()
    shared = SharedCalls(slow, most=16)

    def ask(value: int) -> bool:
        rows = shared(faces(value, value + 1)) if value % 2 else shared(faces(value))
        return bool(rows.ravel().tolist() == ([value, value + 1] if value % 2 else [value]))

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(200)))
    assert sum(slow.sizes) == 300 and max(slow.sizes) <= 16


def test_a_request_that_fails_fails_alone() -> None:
    shared = SharedCalls(Slow())

    def ask(value: int) -> str:
        try:
            return str(shared(faces(value)).item())
        except ValueError as error:
            return str(error)

    values = [255 if place % 5 == 0 else place for place in range(100)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, values))
    wanted = ["a face that cannot be embedded" if value == 255 else str(float(value)) for value in values]
    assert answers == wanted


def test_faces_of_another_size_wait_for_the_next_call() -> None:
    shared = SharedCalls(Slow())
    sides = [2 + place % 3 for place in range(60)]
    with ThreadPoolExecutor(12) as pool:
        rows = list(pool.map(lambda side: shared(faces(side, side=side)).item(), sides))
    assert rows == sides


def test_a_large_request_is_not_divided() -> None:
    slow = Slow()
    assert len(SharedCalls(slow, most=4)(faces(*range(9)))) == 9
    assert slow.sizes == [9]


def test_an_interrupt_leaves_no_one_waiting() -> None:
    def stops(faces: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        raise KeyboardInterrupt

    shared = SharedCalls(stops)

    def ask(value: int) -> bool:
        with pytest.raises(KeyboardInterrupt):
            shared(faces(value))
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(24), timeout=30))
