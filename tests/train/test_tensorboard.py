import sys
from pathlib import Path

import pytest
import torch

from facescale.train.tensorboard import Board


def tags_of(folder: Path):  # type: ignore[no-untyped-def]
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_numbers_of_a_line_become_scalars(tmp_path: Path) -> None:
    show = Board(tmp_path)
    show({"kind": "train", "step": 3, "loss": 1.5, "note": "text is left out"})
    events = tags_of(tmp_path)
    (event,) = events.Scalars("train/loss")
    assert (event.step, event.value) == (3, 1.5)
    assert events.Tags()["scalars"] == ["train/loss"]


def test_settings_become_hyper_parameters_and_images_are_shown(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.settings({"optim.lr": 0.1, "head.name": "full", "data.train": ["a", "b"]}, ["train/loss"])
    board.images("train/augmented", torch.zeros(2, 8, 8, 3, dtype=torch.uint8), 4)
    events = tags_of(tmp_path)
    assert events.Tags()["images"] == ["train/augmented"]
    stored = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert all(word in stored for word in (b"optim.lr", b"head.name", b"['a', 'b']"))


def test_without_tensorboard_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    board = Board(tmp_path / "board")
    board({"kind": "train", "step": 1, "loss": 1.0})
    board.settings({"a": 1}, [])
    board.images("x", torch.zeros(1, 2, 2, 3, dtype=torch.uint8), 0)
    assert not (tmp_path / "board").exists()


def test_a_training_shows_settings_and_augmented_images(tiny_run: Path) -> None:
    events = tags_of(tiny_run / "tensorboard")
    assert "train/augmented" in events.Tags()["images"] and "train/loss" in events.Tags()["scalars"]
    assert b"head.margin.scale" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
