"""Averages between two log lines, and that they go on after a pause and after a resume."""

import math

import pytest
import torch

from facescale.train import meter as module
from facescale.train.meter import Meter


class Clock:
    """A clock that a test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "monotonic", made)
    return made


def test_a_line_has_means_since_the_last_one(clock: Clock) -> None:
    meter = Meter(torch.device("cpu"))
    for loss, waited in ((3.0, 0.5), (1.0, 0.0)):
        meter.add(torch.tensor(loss), 8, waited)
    clock.now += 4
    assert meter.flush() == {"loss": 2.0, "images_per_s": 4.0, "wait_share": 0.125, "seconds": 4.0}
    meter.add(torch.tensor(5.0), 8, 1.0)
    clock.now += 2
    assert meter.flush() == {"loss": 5.0, "images_per_s": 4.0, "wait_share": 0.5, "seconds": 2.0}


def test_a_skipped_step_counts_for_the_speed_but_not_for_the_loss(clock: Clock) -> None:
    meter = Meter(torch.device("cpu"))
    meter.add(torch.tensor(3.0), 8, 0.0)
    meter.add(None, 8, 0.0)
    clock.now += 2
    line = meter.flush()
    assert (line["loss"], line["images_per_s"]) == (3.0, 8.0)
    meter.add(None, 8, 0.0)
    assert math.isnan(meter.flush()["loss"])


def test_a_pause_is_not_training_time(clock: Clock) -> None:
    meter = Meter(torch.device("cpu"))
    meter.add(torch.tensor(1.0), 8, 0.0)
    clock.now += 2
    with meter.paused():
        clock.now += 50
        assert meter.state()["seconds"] == 2
    clock.now += 2
    assert meter.flush()["seconds"] == 4


def test_what_was_collected_goes_on_after_a_resume(clock: Clock) -> None:
    first, second = Meter(torch.device("cpu")), Meter(torch.device("cpu"))
    first.add(torch.tensor(0.1), 8, 0.25)
    first.add(None, 8, 0.25)
    clock.now += 3
    state = first.state()
    clock.now += 1000
    second.load_state(state)
    for meter in (first, second):
        meter.add(torch.tensor(0.2), 8, 0.5)
    clock.now += 1
    resumed = second.flush()
    assert resumed == {"loss": 0.15, "images_per_s": 6.0, "wait_share": 0.25, "seconds": 4.0}
    assert first.flush()["loss"] == resumed["loss"]
