"""fp16 and int8 exports, compiled packages, and the accuracy that every export must keep."""

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import facescale
from facescale import backbones
from facescale.export import checked
from facescale.export.accuracy import (
    Accuracy,
    AccuracyError,
    compare_accuracy,
    known_to,
    measure,
    protocols_of,
    require_accuracy,
)
from facescale.export.quantise import calibration_faces
from facescale.export.write import export
from facescale.inference.model import Model
from facescale.inference.weights import save_model
from facescale.model_card import Card, Contract, Threshold

SPEC = {"name": "mbf_s", "embedding_size": 32, "options": {"input_size": 32}}
PAIRS = "drawn=synthetic:pairs=40"


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    network = backbones.build("mbf_s", 32, input_size=32)
    for _ in range(5):
        network(torch.randn(16, 3, 32, 32))
    return Model.of(
        network.eval(), Card(Contract(size=32), SPEC, {0.1: Threshold(0.3, 0.2, 0.4, "lfw")}), "cpu"
    )


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), np.uint8)


def test_int8_stores_bytes_says_what_it_was_calibrated_on_and_has_its_own_fingerprint(
    model: Model, faces: np.ndarray, tmp_path: Path
) -> None:
    full = export(model, tmp_path / "full.onnx")
    report = export(
        model,
        tmp_path / "int8.onnx",
        precision="int8",
        calibrate_on=faces,
        check=["synthetic:pairs=40"],
        max_drop=1,
    )
    assert report.num_bytes < 0.5 * full.num_bytes
    assert report.writer.endswith("static int8")
    assert report.calibrated_on == "24 user images"
    kinds = {
        one.data_type for one in onnx.load(tmp_path / "int8.onnx").graph.initializer if len(one.dims) == 4
    }
    assert kinds == {onnx.TensorProto.INT8}
    loaded = facescale.load(tmp_path / "int8.onnx", "cpu")
    assert loaded.fingerprint == report.fingerprint != model.fingerprint
    assert loaded.card.graph.precision == "int8"  # type: ignore[union-attr]
    cosines = (loaded.embed(faces) * model.embed(faces)).sum(1)
    assert 0.9 < cosines.min() < 0.999999


def test_thresholds_of_another_precision_are_measured_again_as_far_as_the_protocol_goes(
    model: Model, tmp_path: Path
) -> None:
    export(
        model,
        tmp_path / "half.onnx",
        precision="fp16",
        check=["drawn=synthetic:pairs=200"],
        max_drop=1,
    )
    found = facescale.load(tmp_path / "half.onnx", "cpu").thresholds
    assert list(found) == [0.1]  # 100 impostor pairs say nothing of a rate of 0.01
    assert found[0.1].on == "drawn"
    given = {0.1: Threshold(0.9, 0.8, 0.95, "mine")}
    export(model, tmp_path / "m.onnx", precision="fp16", check=[PAIRS], max_drop=1, thresholds=given)
    assert facescale.load(tmp_path / "m.onnx", "cpu").thresholds == given


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_fp16_halves_the_weights_and_keeps_the_embeddings(model: Model, tmp_path: Path, suffix: str) -> None:
    full = export(model, tmp_path / f"full{suffix}")
    half = export(model, tmp_path / f"half{suffix}", precision="fp16")
    assert half.num_bytes < 0.75 * full.num_bytes
    assert half.min_cosine > 0.9995
    assert next(model.module.parameters()).dtype is torch.float32, "the model itself is left as it was"


def test_accuracy_before_and_after_stands_in_report_and_file(model: Model, tmp_path: Path) -> None:
    report = export(model, tmp_path / "m.safetensors", check=[PAIRS])
    (one,) = report.accuracy
    assert (one.protocol, one.figure, one.file) == ("drawn", "accuracy", one.network)
    info = facescale.load(tmp_path / "m.safetensors", "cpu").info["accuracy"]
    assert info == {"drawn": {"figure": "accuracy", "network": one.network, "file": one.file}}


def test_what_the_run_knows_of_its_network_is_not_computed_again(
    tiny_run: Path, tmp_path: Path, embedded: list[int]
) -> None:
    first = export(tiny_run, tmp_path / "m.onnx").accuracy  # keeps the network's embeddings in the run
    embedded.clear()
    assert export(tiny_run, tmp_path / "m.onnx").accuracy == first
    assert sum(embedded) <= 6, "the parity check alone"

    # Embeddings of another network are not taken for its own
    other = facescale.load(tiny_run, "cpu")
    with torch.no_grad():
        next(other.module.parameters()).mul_(-1)
    embedded.clear()
    measure(other, protocols_of(None, tiny_run), known_to(tiny_run, other))
    assert sum(embedded) > 20


def test_a_file_that_recognises_worse_is_not_written(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = checked.compare_accuracy

    def worse(before: list, after: list) -> list[Accuracy]:
        return [
            Accuracy(one.protocol, one.figure, one.network, one.file - 0.01) for one in real(before, after)
        ]

    monkeypatch.setattr(checked, "compare_accuracy", worse)
    (tmp_path / "m.onnx").write_text("an earlier export")
    with pytest.raises(AccuracyError, match=r"a loss of more than 0\.50%; '.*m\.onnx' was not written"):
        export(model, tmp_path / "m.onnx", check=[PAIRS])
    assert (tmp_path / "m.onnx").read_text() == "an earlier export"
    export(model, tmp_path / "m.onnx", check=[PAIRS], max_drop=0.02)
    export(model, tmp_path / "m.onnx", check=())


def test_a_figure_that_is_no_number_is_a_loss() -> None:
    with pytest.raises(AccuracyError, match="on lfw is nan%"):
        require_accuracy([Accuracy("lfw", "accuracy", 0.9, float("nan"))], 0.1, Path("m.onnx"))


def test_a_figure_that_the_file_lacks_is_no_number() -> None:
    class One:
        name = "p"

        def __init__(self, *figures: tuple[str, float]) -> None:
            self.figures = lambda: iter(figures)

    (found,) = compare_accuracy([One(("rank1", 0.5))], [One(("rank5", 0.5))])  # type: ignore[list-item]
    assert np.isnan(found.file)


def test_a_run_s_evaluation_sets_are_measured_on_as_far_as_they_are_there(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[eval.sets]\ngone = "nowhere.csv"\nhere = "synthetic:pairs=20"\n')
    assert protocols_of(None, tmp_path) == [("here", "synthetic:pairs=20")]
    assert protocols_of([], tmp_path) == []
    assert protocols_of(["a=synthetic:pairs=2"], tmp_path) == [("a", "synthetic:pairs=2")]
    assert protocols_of(None, None) == []


def test_calibration_uses_training_images_of_a_run_unless_told(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[data]\ntrain = "synthetic:ids=3,images=4"\n')
    faces, words = calibration_faces(None, tmp_path, 32, count=5)
    assert faces.shape == (5, 32, 32, 3)
    assert words == "5 training images of the run"
    assert (
        calibration_faces("synthetic:ids=2,images=2", tmp_path, 32)[1]
        == "4 images of synthetic:ids=2,images=2"
    )
    with pytest.raises(ValueError, match="int8 needs faces to measure ranges on"):
        calibration_faces(None, None, 32)
    with pytest.raises(ValueError, match="no images to calibrate int8 on"):
        calibration_faces(np.zeros((0, 32, 32, 3), np.uint8), None, 32)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.onnx", {"precision": "int4"}, "unknown precision 'int4'"),
        ("m.onnx", {"precision": "int8"}, "int8 costs accuracy and none was measured; name a protocol"),
        ("m.pt2", {"precision": "int8"}, r"int8 is for \.onnx files, not for"),
        (
            "m.onnx",
            {"precision": "fp16", "half_weights": True},
            "half_weights does not go with precision 'fp16'",
        ),
        ("m.safetensors", {"precision": "fp16"}, "contains weights but no graph"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    model: Model, tmp_path: Path, name: str, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


class Small(nn.Module):
    """Compiles in seconds."""

    embedding_size = 4
    input_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(nn.functional.avg_pool2d(x, 4).flatten(1))


@pytest.mark.slow
def test_a_compiled_package_embeds_alike_and_carries_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Model.of(Small().eval(), Card(Contract(size=32), SPEC), "cpu")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    report = export(small, tmp_path / "m.aoti.pt2", check=["synthetic:pairs=20"])
    assert report.writer == "AOTInductor"
    assert report.max_relative_difference < 1e-4
    with zipfile.ZipFile(tmp_path / "m.aoti.pt2") as archive:
        (name,) = [one for one in archive.namelist() if one.endswith("facescale.json")]
        assert Card.from_json(archive.read(name).decode()).info["accuracy"]["synthetic"]["file"] > 0


def test_a_network_that_cannot_be_compiled_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no compiler\nand a long log")

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", fails)
    small = Model.of(Small().eval(), Card(Contract(size=32), SPEC), "cpu")
    with pytest.raises(
        ValueError, match=r"AOTInductor cannot compile this network here \(no compiler\); it needs"
    ):
        export(small, tmp_path / "m.aoti.pt2")


def test_the_command_measures_and_says_it(facescale, model: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "w.safetensors", model.module.state_dict(), SPEC, model.contract)
    words = ["export", str(tmp_path / "w.safetensors"), "--out", str(tmp_path / "m.onnx")]
    code, out, _ = facescale(
        *words, "--precision", "fp16", "--check", "d=synthetic:pairs=20", "--max-drop", "1"
    )
    assert code == 0
    assert "d: accuracy " in out and " before, " in out
    code, out, _ = facescale(*words, "--no-accuracy")
    assert "accuracy was not measured; --check NAME=PATH names a protocol" in out
    code, _, err = facescale(*words, "--layout", "zip")
    assert code == 2 and "unknown layout 'zip'" in err
    code, _, err = facescale(*words, "--layout", "mfr", "--precision", "fp16")
    assert code == 2 and "layout mfr decides the graph itself" in err
    code, _, err = facescale("export", str(tmp_path / "w.safetensors"), "--layout", "mfr")
    assert code == 2 and "layout mfr is a folder; name it with --out FOLDER" in err
