"""How far an exported file may be from its network: planted differences just beyond what is allowed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import facescale
from facescale.export import write as writing
from facescale.export.graph import ExportGraph
from facescale.export.parity import ParityError
from facescale.export.write import export
from facescale.inference.model import Model
from facescale.model_card import Card, Contract, Threshold
from tests.wiring.toy import SIZE, D, Toy


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    spec = {"name": "toy", "embedding_size": D, "options": {}}
    card = Card(Contract(size=SIZE), spec, {0.1: Threshold(0.3, 0.2, 0.4, "lfw")}, {"data": "drawn"})
    return Model.of(Toy(D).eval(), card, "cpu")


def planted(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Whatever writes a network writes embeddings that are ``factor`` times its own."""
    weights = writing.save_model

    class Scaled(ExportGraph):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return super().forward(images) * factor

    monkeypatch.setattr(writing, "ExportGraph", Scaled)

    def save(path: Path, state: dict[str, torch.Tensor], *rest: Any, **named: Any) -> None:
        scaled = {key: x * factor if key.startswith("fc.") else x for key, x in state.items()}
        weights(path, scaled, *rest, **named)

    monkeypatch.setattr(writing, "save_model", save)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".safetensors"])
def test_a_difference_of_a_thousandth_is_too_much(
    model: Model, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, 1.0005)
    with pytest.raises(ParityError, match=r"relative difference 0\.0005 \(allowed 0\.0001\)"):
        export(model, tmp_path / f"m{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_a_difference_of_the_last_digits_is_not(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, 1.00003)
    report = export(model, tmp_path / "m.safetensors")
    assert report.max_relative_difference == pytest.approx(3e-5, rel=0.1)


def test_half_weights_may_be_two_hundredths_away(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted(monkeypatch, 1.01)
    assert export(model, tmp_path / "m.onnx", half_weights=True).max_relative_difference > 5e-3
    planted(monkeypatch, 1.04)
    with pytest.raises(ParityError, match=r"allowed 0\.02\)"):
        export(model, tmp_path / "n.onnx", half_weights=True)
    assert not (tmp_path / "n.onnx").exists()


def test_a_turned_embedding_of_half_weights_is_too_much(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every number is within two hundredths of the largest, but the cosine is lower than 0.9995."""

    class Turned(ExportGraph):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            embedding = super().forward(images)
            signs = torch.tensor([1.0, -1.0]).repeat(D // 2)
            return embedding + 0.019 * embedding.abs().amax(1, keepdim=True) * signs

    faces = np.random.default_rng(0).integers(0, 256, (6, SIZE, SIZE, 3), np.uint8)
    raw = model.embed_raw(faces)
    turned = raw + 0.019 * np.abs(raw).max(1, keepdims=True) * np.tile([1, -1], D // 2)
    cosine = (raw * turned).sum(1) / np.linalg.norm(raw, axis=1) / np.linalg.norm(turned, axis=1)
    assert 0.95 < cosine.min() < 0.9995, "the planted fault is one of direction"
    monkeypatch.setattr(writing, "ExportGraph", Turned)
    with pytest.raises(ParityError, match=r"cosine down to 0\.99\d+ \(allowed 0\.9995\)"):
        export(model, tmp_path / "m.onnx", images=faces, half_weights=True)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".safetensors"])
def test_card_thresholds_and_fingerprint_travel_with_every_form(
    model: Model, suffix: str, tmp_path: Path
) -> None:
    report = export(model, tmp_path / f"m{suffix}", info={"licence": "none"})
    assert report.num_bytes == (tmp_path / f"m{suffix}").stat().st_size
    assert report.fingerprint == model.fingerprint
    if suffix == ".pt2":
        from facescale.export.program import ProgramEncoder

        card = ProgramEncoder(tmp_path / "m.pt2", D).card
    else:
        loaded = facescale.load(tmp_path / f"m{suffix}", device="cpu")
        card = loaded.card
        assert loaded.fingerprint == model.fingerprint
    assert card.contract == model.contract and card.thresholds == model.thresholds
    assert {key: card.info[key] for key in ("data", "licence")} == {"data": "drawn", "licence": "none"}
    assert card.info["alignment"]["template_pixels"] == 112


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("unit_output", [True, False])
@pytest.mark.parametrize("uint8_input", [True, False])
def test_a_graph_does_by_itself_what_was_asked_for(
    model: Model, suffix: str, uint8_input: bool, unit_output: bool, tmp_path: Path
) -> None:
    path = tmp_path / f"m{suffix}"
    export(model, path, uint8_input=uint8_input, unit_output=unit_output)
    faces = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE, 3), np.uint8)
    images = faces if uint8_input else ((faces.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
    if suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (out,) = session.run(None, {"images": images})
    else:
        out = torch.export.load(path).module()(torch.from_numpy(images.copy())).detach().numpy()
    expected = model.embed(faces) if unit_output else model.embed_raw(faces)
    np.testing.assert_allclose(out, expected, atol=1e-5)


def test_half_weights_halve_the_file(model: Model, tmp_path: Path) -> None:
    import onnx

    full = export(model, tmp_path / "full.onnx")
    half = export(model, tmp_path / "half.onnx", half_weights=True)
    kinds = {x.data_type for x in onnx.load(tmp_path / "half.onnx").graph.initializer if len(x.dims) > 1}
    assert kinds == {onnx.TensorProto.FLOAT16}
    assert half.max_relative_difference > full.max_relative_difference


@pytest.mark.parametrize("opset", [13, 16, 18])
def test_the_operator_set_is_the_one_that_was_asked_for(model: Model, opset: int, tmp_path: Path) -> None:
    import onnx

    export(model, tmp_path / "m.onnx", opset=opset)
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset
