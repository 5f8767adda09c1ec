"""A converted checkpoint is a weights file that says where it comes from."""

from pathlib import Path

import pytest
import torch

from facescale import backbones, load
from facescale.inference.convert_file import convert_file


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(backbones.build("mbf_s", 16).state_dict(), tmp_path / "old.pth")
    return tmp_path / "old.pth"


def test_the_file_names_its_origin(checkpoint: Path, tmp_path: Path) -> None:
    done = convert_file(checkpoint, tmp_path / "new.safetensors")
    assert (done.origin, done.backbone, done.embedding_size) == ("insightface", "mbf_s", 16)
    assert (done.colour, done.colour_check) == ("RGB", None)
    assert load(done.path).info == {"origin": "insightface", "converted_from": "old.pth"}


def test_the_colour_order_is_checked_on_images(checkpoint: Path, tmp_path: Path) -> None:
    done = convert_file(checkpoint, tmp_path / "new.safetensors", images="synthetic:ids=4,images=2")
    assert done.colour_check is not None and "separation" in done.colour_check


def test_the_suffix_is_checked(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot write '.*new\.bin'; its suffix must be \.safetensors"):
        convert_file(checkpoint, tmp_path / "new.bin")
