"""The card of a weights file is read without its tensors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from facescale.inference.weights import read_card, save_model
from facescale.model_card import Contract, Threshold


def test_a_card_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    thresholds = {1e-3: Threshold(0.3, 0.25, 1 / 3, "lfw")}
    spec = {"name": "mbf", "embedding_size": 8, "options": {}}
    save_model(tmp_path / "m.safetensors", {"w": torch.ones(1)}, spec, Contract(size=56), thresholds)
    card = read_card(tmp_path / "m.safetensors")
    assert (card.contract, card.backbone, card.thresholds) == (Contract(size=56), spec, thresholds)


def test_a_file_without_a_card_or_that_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    save_file({"w": torch.ones(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(ValueError, match=r"foreign\.safetensors' have no card; give a file that facescale"):
        read_card(tmp_path / "foreign.safetensors")
    (tmp_path / "half.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"cannot read the weights '.*half\.safetensors'"):
        read_card(tmp_path / "half.safetensors")
