import sys
from pathlib import Path

import pytest

from facescale.train.tensorboard import open_board


def test_numbers_of_a_line_become_scalars(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    show = open_board(tmp_path)
    show({"kind": "train", "step": 3, "loss": 1.5, "note": "text is left out"})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    (event,) = events.Scalars("train/loss")
    assert (event.step, event.value) == (3, 1.5)
    assert events.Tags()["scalars"] == ["train/loss"]


def test_without_tensorboard_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    open_board(tmp_path / "board")({"kind": "train", "step": 1, "loss": 1.0})
    assert not (tmp_path / "board").exists()
