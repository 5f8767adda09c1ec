"""What is exported gives the embeddings of the network and says how to use it, or is not written."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import facescale
from facescale import backbones
from facescale.data.loading.decode import resized
from facescale.data.synthetic.faces import SyntheticFaces
from facescale.evaluate.run_protocols import evaluate
from facescale.export.parity import ParityError
from facescale.export.resize import area_resize
from facescale.export.write import export
from facescale.inference.load import load, load_onnx
from facescale.inference.model import Model
from facescale.inference.weights import load_model, save_model
from facescale.model_card import KEY, Card, Contract, Graph, Threshold

SPEC = {"name": "mbf_s", "embedding_size": 64, "options": {}}
CARD = Card(Contract(), SPEC, {1e-3: Threshold(0.31, 0.29, 0.34, "lfw")}, {"licence": "MIT"})


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    network = backbones.build("mbf_s", 64)
    network(
        torch.randn(8, 3, 112, 112)
    )  # gives batch norm statistics that fit, so that the numbers are lively
    return Model.of(network.eval(), CARD, "cpu")


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    reader = SyntheticFaces(7, 1, seed=5)
    return np.stack([reader[index][0] for index in range(7)])


class Tiny(nn.Module):
    """A small network: pooled pixels through one product."""

    embedding_size = 8
    input_size = 32

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(48, 8)

    def forward(self, x):
        return self.fc(nn.functional.avg_pool2d(x, 8).flatten(1))


@pytest.fixture(scope="module")
def tiny() -> Model:
    torch.manual_seed(0)
    return Model.of(Tiny().eval(), Card(Contract(size=32), SPEC), "cpu")


def test_a_graph_that_takes_pixels_resizes_as_the_contract_says(tmp_path):
    torch.manual_seed(0)
    contract = Contract(size=32, resize="area", flip=False)
    model = Model.of(Tiny().eval(), Card(contract, SPEC), "cpu")
    for suffix in (".onnx", ".pt2"):
        export(model, tmp_path / f"m{suffix}", uint8_input=True)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    program = torch.export.load(tmp_path / "m.pt2").module()
    for height, width in ((64, 50), (20, 24), (32, 32)):
        images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
        expected = model.embed_raw(images)
        same(session.run(None, {"images": images})[0], expected)
        same(program(torch.from_numpy(images)).detach().numpy(), expected)
    same(load(tmp_path / "m.onnx", device="cpu").embed_raw(images), expected)
    assert "height, width, 3), which it scales to 32 x 32" in onnx.load(tmp_path / "m.onnx").doc_string


def test_the_area_filter_is_that_of_the_loader_up_to_one_grey_level():
    for height, width in ((250, 250), (113, 200), (112, 112), (60, 75)):
        pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
        found = area_resize(torch.from_numpy(pixels)[None], 112)[0].numpy().astype(int)
        difference = np.abs(found - resized(pixels, 112, 112))
        assert difference.max() <= 1 and (difference > 0).mean() < 0.2


def same(a: np.ndarray, b: np.ndarray) -> None:
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, atol=1e-4 * np.abs(b).max())


@pytest.mark.parametrize("suffix", [".onnx", ".safetensors"])
def test_an_export_loads_as_a_model_with_the_same_embeddings_and_card(model, faces, tmp_path, suffix):
    report = export(model, tmp_path / f"m{suffix}", info={"data": "synthetic"})
    loaded = facescale.load(tmp_path / f"m{suffix}", "cpu")
    same(loaded.embed(faces), model.embed(faces))
    same(loaded.embed_raw(faces), model.embed_raw(faces))
    assert loaded.embedding_size == 64
    assert loaded.contract == model.contract
    assert loaded.thresholds == model.thresholds
    assert loaded.info == {"licence": "MIT", "data": "synthetic", "alignment": loaded.info["alignment"]}
    assert loaded.info["alignment"]["landmarks"][0] == [38.2946, 51.6963]
    assert loaded.fingerprint == model.fingerprint == report.fingerprint
    assert report.max_relative_difference < 1e-4
    assert report.min_cosine > 0.9999
    assert report.num_bytes == (tmp_path / f"m{suffix}").stat().st_size
    assert report.checked_on == "6 synthetic faces"
    assert [entry.name for entry in tmp_path.iterdir()] == [f"m{suffix}"]


def test_an_onnx_file_takes_any_batch_and_gives_raw_embeddings_to_plain_onnx_runtime(model, faces, tmp_path):
    report = export(model, tmp_path / "m.onnx", opset=15)
    assert report.writer == "ONNX (tracing exporter, opset 15)"
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    for batch in (1, 3, 7):
        x = model.contract.normalise(torch.from_numpy(faces[:batch])).contiguous().numpy()
        (embedding,) = session.run(["embedding"], {"images": x})
        same(embedding, model.embed_raw(faces[:batch]))
    onnx.checker.check_model(tmp_path / "m.onnx")


def test_a_self_contained_onnx_file_takes_pixels_and_gives_the_final_embedding(model, faces, tmp_path):
    export(model, tmp_path / "m.onnx", uint8_input=True, unit_output=True)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    (embedding,) = session.run(None, {"images": faces})
    same(embedding, model.embed(faces))
    loaded = facescale.load(tmp_path / "m.onnx", "cpu")
    assert loaded.card.graph == Graph(uint8_input=True, unit_output=True)
    assert not loaded.needs_flip
    same(loaded.embed(faces), model.embed(faces))
    with pytest.raises(ValueError, match="this graph returns unit embeddings, so there are no raw ones"):
        loaded.embed_raw(faces)


@pytest.mark.parametrize(
    "contract",
    [Contract(size=32, colour="BGR", mean=0.0, std=255.0), Contract(size=32, flip=False, mean=100.0)],
)
@pytest.mark.parametrize("graph", [Graph(), Graph(uint8_input=True), Graph(unit_output=True)])
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_every_contract_is_kept_by_every_graph(tiny, tmp_path, contract, graph, suffix):
    model = Model.of(tiny.module, Card(contract, SPEC), "cpu")
    options = {"uint8_input": graph.uint8_input, "unit_output": graph.unit_output}
    report = export(model, tmp_path / f"m{suffix}", **options)
    assert report.max_relative_difference < 1e-5
    if suffix == ".onnx":
        images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), np.uint8)
        same(facescale.load(tmp_path / "m.onnx", "cpu").embed(images), model.embed(images))


def test_an_exported_program_takes_any_batch_and_carries_its_card(tiny, tmp_path):
    report = export(tiny, tmp_path / "m.pt2")
    assert report.writer == "torch.export"
    extra = {f"{KEY}.json": ""}
    program = torch.export.load(tmp_path / "m.pt2", extra_files=extra).module()
    assert Card.from_json(extra[f"{KEY}.json"]).fingerprint == tiny.fingerprint
    for batch in (1, 2, 9):
        x = torch.randn(batch, 3, 32, 32)
        torch.testing.assert_close(program(x), tiny.module(x))


def test_the_metadata_is_readable_json_and_the_doc_string_says_what_goes_in(tiny, tmp_path):
    export(tiny, tmp_path / "m.onnx", thresholds=CARD.thresholds)
    file = onnx.load(tmp_path / "m.onnx")
    tree = json.loads({entry.key: entry.value for entry in file.metadata_props}[KEY])
    assert tree["contract"] == {"size": 32, "colour": "RGB", "mean": 127.5, "std": 127.5, "flip": True}
    assert tree["thresholds"]["0.001"]["cosine"] == 0.31
    assert tree["graph"] == {
        "uint8_input": False,
        "unit_output": False,
        "precision": "fp32",
    }
    assert "float32 (batch, 3, 32, 32), channels RGB, (v - 127.5) / 127.5" in file.doc_string
    assert "add that of the mirrored image" in file.doc_string
    export(tiny, tmp_path / "m.onnx", uint8_input=True, unit_output=True)
    text = onnx.load(tmp_path / "m.onnx").doc_string
    assert "uint8 RGB pixels (batch, 32, 32, 3)" in text
    assert "unit embedding of the image and its mirror image" in text


def test_half_weights_halve_the_file_and_keep_the_embeddings(model, faces, tmp_path):
    full = export(model, tmp_path / "full.onnx")
    half = export(model, tmp_path / "half.onnx", half_weights=True)
    assert half.num_bytes < 0.6 * full.num_bytes
    cosines = (facescale.load(tmp_path / "half.onnx", "cpu").embed(faces) * model.embed(faces)).sum(1)
    assert cosines.min() > 0.9995
    assert full.max_relative_difference < half.max_relative_difference < 0.02


def test_where_the_tracing_exporter_fails_its_successor_is_used(tiny, tmp_path, monkeypatch):
    original = torch.onnx.export

    def without_tracing(*args, dynamo, **kwargs):
        if not dynamo:
            raise TypeError("the tracing exporter is gone")
        return original(*args, dynamo=dynamo, **kwargs)

    monkeypatch.setattr(torch.onnx, "export", without_tracing)
    report = export(tiny, tmp_path / "m.onnx")
    assert report.writer == "ONNX (dynamo exporter, opset 18)"
    images = np.zeros((4, 32, 32, 3), np.uint8)
    same(facescale.load(tmp_path / "m.onnx", "cpu").embed(images), tiny.embed(images))


class Shifty(Tiny):
    """A network that computes something else while it is captured."""

    def forward(self, x):
        captured = torch.jit.is_tracing() or torch.compiler.is_compiling()
        return super().forward(x.flip(1) if captured else x)


@pytest.mark.parametrize("unit_output", [False, True])
def test_an_exported_graph_is_evaluated_like_its_network(model, tmp_path, unit_output):
    export(model, tmp_path / "m.onnx", unit_output=unit_output)
    export(model, tmp_path / "m.safetensors")
    scores = [
        evaluate(tmp_path / name, [("", "synthetic:pairs=20")], tmp_path / "r.html", False, 16, "cpu")[0][
            0
        ].scores
        for name in ("m.onnx", "m.safetensors")
    ]
    np.testing.assert_allclose(*scores, atol=1e-5)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_file_that_gives_other_embeddings_is_not_written(tmp_path, suffix):
    torch.manual_seed(0)
    path = tmp_path / f"m{suffix}"
    path.write_text("an earlier export")
    wrong = Model.of(Shifty().eval(), Card(Contract(size=32), SPEC), "cpu")
    with pytest.raises(ParityError, match=r"differ from those of .*cosine down to .* on 6 synthetic faces"):
        export(wrong, path)
    assert path.read_text() == "an earlier export"
    assert list(tmp_path.iterdir()) == [path]


def test_not_a_number_is_not_parity(tmp_path):
    network = Tiny().eval()
    network.fc.weight.data[0] = torch.nan
    with pytest.raises(ParityError, match="relative difference nan"):
        export(Model.of(network, Card(Contract(size=32), SPEC), "cpu"), tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def test_the_comparison_uses_the_given_images(tiny, tmp_path):
    given = np.zeros((2, 32, 32, 3), np.uint8)
    assert export(tiny, tmp_path / "m.onnx", images=given).checked_on == "2 user images"
    spec = "synthetic:ids=3,images=2"
    assert export(tiny, tmp_path / "m.onnx", images=spec).checked_on == f"6 images of {spec}"
    with pytest.raises(ValueError, match="no images to compare on"):
        export(tiny, tmp_path / "m.onnx", images=given[:0])
    with pytest.raises(ValueError, match="images are 40x40 pixels, the model takes 32x32"):
        export(tiny, tmp_path / "m.onnx", images=np.zeros((2, 40, 40, 3), np.uint8))


def test_a_run_is_compared_on_its_evaluation_set_or_else_on_synthetic_faces(model, tmp_path):
    pairs = tmp_path / "pairs.csv"
    folder = tmp_path / "run" / "checkpoints" / "step_00000001"
    save_model(folder / "model.safetensors", model.module.state_dict(), SPEC, CARD.contract)
    config = tmp_path / "run" / "config.toml"
    config.write_text('[eval.sets]\nunseen = "synthetic:pairs=20"\n')
    report = export(tmp_path / "run", tmp_path / "m.safetensors")
    assert report.checked_on == "6 images of the run's evaluation set unseen"
    config.write_text(f'[eval.sets]\ngone = "{pairs}"\n')
    assert export(tmp_path / "run", tmp_path / "m.safetensors").checked_on == "6 synthetic faces"


def test_exporting_leaves_the_model_as_it_was(tiny, tmp_path):
    tiny.module.train()
    before = tiny.fingerprint
    export(tiny, tmp_path / "m.onnx")
    assert tiny.module.training
    assert Model.of(tiny.module, tiny.card, "cpu").fingerprint == before
    tiny.module.eval()


def test_a_run_or_weights_file_is_exported_by_its_path(model, tmp_path):
    save_model(tmp_path / "a.safetensors", model.module.state_dict(), SPEC, CARD.contract)
    export(tmp_path / "a.safetensors", tmp_path / "deep" / "m.onnx")
    assert facescale.load(tmp_path / "deep" / "m.onnx", "cpu").fingerprint == model.fingerprint


def test_an_exported_safetensors_file_is_an_ordinary_weights_file(model, tmp_path):
    export(model, tmp_path / "m.safetensors")
    card = load_model(tmp_path / "m.safetensors", "cpu").card
    assert replace(card, info={"licence": card.info["licence"]}) == CARD


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.h5", {}, r"cannot export to '.*m\.h5'; the name must end in \.onnx, \.pt2 or \.safetensors"),
        ("m.pt2", {"half_weights": True}, r"half_weights is for \.onnx files"),
        ("m.safetensors", {"unit_output": True}, "uint8_input and unit_output are for"),
        ("m.onnx", {"opset": 5}, "opset 5 is not supported; choose 13 to 20"),
    ],
)
def test_options_that_do_not_fit_are_refused(tiny, tmp_path, name, options, message):
    with pytest.raises(ValueError, match=message):
        export(tiny, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


def test_an_exported_graph_cannot_be_exported_again(tiny, tmp_path):
    export(tiny, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="an exported graph has no PyTorch module"):
        export(tmp_path / "m.onnx", tmp_path / "n.onnx")


def test_a_network_without_a_name_cannot_become_a_weights_file(tiny, tmp_path):
    with pytest.raises(ValueError, match="was not built by name"):
        export(Model.of(tiny.module, Card(Contract(size=32)), "cpu"), tmp_path / "m.safetensors")


def test_more_weights_than_an_onnx_file_holds_are_refused(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("facescale.export.onnx_writer._FILE_LIMIT", 100)
    with pytest.raises(ValueError, match=r"an ONNX file holds 2 GB; export to \.pt2 or \.safetensors"):
        export(tiny, tmp_path / "m.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_missing_onnx_packages_are_named_with_their_extra(tiny, tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=r"facescale\[export\]"):
        export(tiny, tmp_path / "m.onnx")
    assert not list(tmp_path.iterdir())


def foreign(path: Path, shape: list, kind=onnx.TensorProto.FLOAT) -> Path:
    """An ONNX file of somebody else: the mean of every channel."""
    helper = onnx.helper
    batch = shape[0]
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", ["data"], ["fc1"], axes=[2, 3], keepdims=0)],
        "foreign",
        [helper.make_tensor_value_info("data", kind, shape)],
        [helper.make_tensor_value_info("fc1", kind, [batch, 3])],
    )
    opset = helper.make_opsetid("", 13)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.mark.parametrize("batch", ["None", 1, 2])
def test_an_onnx_file_of_others_is_used_with_the_usual_contract_even_with_a_fixed_batch(tmp_path, batch):
    model = facescale.load(foreign(tmp_path / "f.onnx", [batch, 3, 24, 24]), "cpu")
    assert model.contract == Contract(size=24)
    assert model.info == {"contract": "assumed: the graph does not normalise"}
    assert len(model.fingerprint) == 32
    images = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), np.uint8)
    expected = (images.astype(np.float64).mean((1, 2)) - 127.5) / 127.5
    np.testing.assert_allclose(model.embed_raw(images), expected, atol=1e-5)


def test_an_onnx_file_that_maps_no_images_to_embeddings_is_refused(tmp_path):
    path = foreign(tmp_path / "f.onnx", ["None", 1, 24, 24])
    with pytest.raises(ValueError, match=r"a face model must map float \(B, 3, S, S\)"):
        load_onnx(path, "cpu")
    (tmp_path / "g.onnx").write_text("not a graph")
    with pytest.raises(ValueError, match=r"cannot read '.*g\.onnx' as ONNX"):
        load_onnx(tmp_path / "g.onnx", "cpu")


def test_an_onnx_file_with_a_damaged_card_is_refused(tiny, tmp_path):
    export(tiny, tmp_path / "m.onnx")
    file = onnx.load(tmp_path / "m.onnx")
    onnx.helper.set_model_props(file, {KEY: "{}"})
    onnx.save(file, tmp_path / "m.onnx")
    with pytest.raises(ValueError, match="its card is damaged"):
        load_onnx(tmp_path / "m.onnx", "cpu")


def test_what_onnx_runtime_cannot_do_is_said(tiny, tmp_path):
    path = foreign(tmp_path / "f.onnx", ["None", 3, 24, 24])
    with pytest.raises(ValueError, match="precision 'bf16' does not apply to ONNX files"):
        load_onnx(path, "cpu", "bf16")
    with pytest.raises(ValueError, match="device 'tpu' cannot be used for an ONNX file"):
        load_onnx(path, "tpu")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ValueError, match="device 'cuda' cannot be used by this ONNX Runtime"):
            load_onnx(path, "cuda")


def test_only_a_run_folder_has_a_default_place_for_its_export(model: Model, tmp_path: Path) -> None:
    weights = tmp_path / "m.safetensors"
    with pytest.raises(
        ValueError, match=r"m\.safetensors' does not exist; name a run folder or a weights file"
    ):
        export(weights)
    weights.touch()
    with pytest.raises(ValueError, match=r"m\.safetensors' is not a run folder; name the file to write with"):
        export(weights)
    with pytest.raises(ValueError, match=r"a model in memory has no run folder; name the file to write"):
        export(model)
