"""A backbone with ``crop`` sees a part of its input, and is saved and exported with that."""

from pathlib import Path

import numpy as np
import pytest
import torch

from facescale import backbones
from facescale.backbones.profile import describe
from facescale.export.write import export
from facescale.inference.weights import load_model, save_model
from facescale.model_card import Contract


def test_only_the_square_is_seen() -> None:
    torch.manual_seed(0)
    net = backbones.build("mbf_s", 16, input_size=48, crop=[4, 10, 32]).eval()
    plain = backbones.build("mbf_s", 16, input_size=32).eval()
    plain.load_state_dict(net.state_dict())  # the same network, of the same keys
    images = torch.randn(2, 3, 48, 48)
    assert net.input_size == 48
    assert torch.equal(net(images), plain(images[:, :, 10:42, 4:36].contiguous()))
    assert describe("mbf_s", 16, input_size=48, crop=[4, 10, 32]) == describe("mbf_s", 16, input_size=32)


@pytest.mark.parametrize("crop", [[0, 0, 113], [-1, 0, 20], [0, 100, 20], [0, 0]])
def test_a_square_outside_is_refused(crop: object) -> None:
    with pytest.raises(ValueError, match=r"backbone.crop = .* must be \[left, top, side\].*112 pixels"):
        backbones.build("mbf_s", crop=crop)


def test_it_is_in_the_weights_file_and_in_the_exported_graph(tmp_path: Path) -> None:
    torch.manual_seed(0)
    options = {"input_size": 48, "crop": [4, 10, 32]}
    net = backbones.build("mbf_s", 16, **options)
    spec = {"name": "mbf_s", "embedding_size": 16, "options": options}
    save_model(tmp_path / "net.safetensors", net.state_dict(), spec, Contract(size=48))
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48, 3), dtype=np.uint8)
    model = load_model(tmp_path / "net.safetensors", "cpu")
    assert export(model, tmp_path / "net.onnx", images=images).min_cosine > 0.9999
    outside = images.copy()
    outside[:, :10] = 255 - outside[:, :10]
    assert np.array_equal(model.embed(outside), model.embed(images))


@pytest.mark.parametrize("crop", [[0, 0, 2.5], "abc", 3, [True, 0, 4]])
def test_a_square_is_whole_numbers(crop: object) -> None:
    with pytest.raises(
        ValueError, match=r"crop of backbone 'mbf_s' is .*; it must be a list of whole numbers"
    ):
        backbones.build("mbf_s", crop=crop)
