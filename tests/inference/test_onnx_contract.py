"""What an ONNX file of another project wants: found in its first nodes, or stated by the user."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

import facescale
from facescale import backbones
from facescale.inference.onnx_contract import guess_contract, stated_contract
from facescale.inference.weights import save_model
from facescale.model_card import Contract

SIZE = 32


def node(kind: str, *constants: float | list[float], first: bool = True) -> tuple[str, list, bool]:
    return kind, list(constants), first


def graph_file(path: Path, *nodes: tuple[str, list, bool]) -> Path:
    """The nodes, then a linear layer: float (B, 3, 32, 32) -> (B, 4)."""
    value, made, initial = "image", [], []
    for number, (kind, constants, first) in enumerate(nodes):
        names = [f"c{number}_{i}" for i in range(len(constants))]
        initial += [
            numpy_helper.from_array(
                np.array(c, np.float32).reshape(
                    (3, 1, 1) if isinstance(c, list) and kind != "BatchNormalization" else -1
                )
                if isinstance(c, list)
                else np.array(c, np.float32),
                name,
            )
            for c, name in zip(constants, names, strict=True)
        ]
        inputs = [value, *names] if first else [*names, value]
        options = {"to": TensorProto.FLOAT} if kind == "Cast" else {}
        made.append(helper.make_node(kind, inputs, [f"v{number}"], **options))
        value = f"v{number}"
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.normal(size=(3 * SIZE * SIZE, 4)).astype(np.float32), "weight")
    made += [
        helper.make_node("Flatten", [value], ["flat"]),
        helper.make_node("MatMul", ["flat", "weight"], ["out"]),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 3, SIZE, SIZE])
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, ["B", 4])
    graph = helper.make_graph(made, "g", [image], [out], [*initial, weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


PIXELS = Contract(SIZE, mean=0.0, std=1.0)
UNIT = Contract(SIZE, mean=0.0, std=255.0)
USUAL = Contract(SIZE)


@pytest.mark.parametrize(
    ("nodes", "contract"),
    [
        ([], USUAL),
        ([node("Sub", 127.5), node("Mul", 1 / 127.5)], PIXELS),
        ([node("Sub", 127.5), node("Mul", 0.0078125, first=False)], PIXELS),
        ([node("Cast"), node("Identity"), node("Sub", 127.5), node("Div", 128.0)], PIXELS),
        ([node("Div", 255.0)], PIXELS),
        ([node("Add", -127.5)], PIXELS),
        ([node("Sub", [123.7, 116.3, 103.5]), node("Div", [58.4, 57.1, 57.4])], PIXELS),
        ([node("BatchNormalization", [1.0] * 3, [0.0] * 3, [127.0] * 3, [4900.0] * 3)], PIXELS),
        ([node("Sub", 0.5), node("Div", 0.5)], UNIT),
        ([node("Mul", 2.0), node("Sub", 1.0)], UNIT),
        ([node("Relu")], USUAL),
        ([node("Mul", 3.0)], USUAL),
        ([node("Sub", 1.0, first=False)], USUAL),
    ],
)
def test_the_first_nodes_say_which_pixels_a_graph_takes(
    tmp_path: Path, nodes: list[tuple[str, list, bool]], contract: Contract
) -> None:
    guess = guess_contract(graph_file(tmp_path / "m.onnx", *nodes), SIZE)
    assert guess.contract == contract
    assert guess.reason.startswith("assumed" if contract == USUAL else "probed")


def test_a_normalised_and_a_bare_graph_give_the_same_embeddings(tmp_path: Path) -> None:
    bare = facescale.load(graph_file(tmp_path / "bare.onnx"), "cpu")
    normalising = graph_file(tmp_path / "norm.onnx", node("Sub", 127.5), node("Mul", 1 / 127.5))
    images = np.random.default_rng(1).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    other = facescale.load(normalising, "cpu")
    np.testing.assert_allclose(other.embed(images), bare.embed(images), atol=1e-5)
    assert "Sub, Mul" in other.info["contract"]


def test_without_the_package_onnx_the_graph_is_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    guess = guess_contract(tmp_path / "m.onnx", SIZE)
    assert guess.contract == USUAL and "needs the package onnx" in guess.reason


def test_a_stated_contract_replaces_what_it_names() -> None:
    assert stated_contract("colour=bgr,flip=no", UNIT) == Contract(SIZE, "BGR", 0.0, 255.0, False)
    assert stated_contract("mean=1,std=2", USUAL) == Contract(SIZE, mean=1.0, std=2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the contract '' states nothing; write it as colour=BGR,mean=127.5"),
        ("color=BGR", r"'color=BGR' has no key 'color'.*the keys are: colour, mean, std, flip"),
        ("mean=x", r"'mean' of 'mean=x' is 'x'; it must be a number, for example colour=BGR"),
        ("flip=maybe", r"'flip' of 'flip=maybe' is 'maybe'; it must be a value, for example .*flip=yes"),
        ("colour=grey", r"contract: colour = 'GREY' must be 'RGB' or 'BGR'"),
        ("std=0", r"contract: std = 0.0 must be a number above 0"),
    ],
)
def test_a_contract_that_cannot_be_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stated_contract(text, USUAL)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(backbones.build("mbf_s", 16).state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_files_of_other_projects_take_a_stated_contract_and_another_fingerprint(
    tmp_path: Path, checkpoint: Path
) -> None:
    for path in (checkpoint, graph_file(tmp_path / "m.onnx")):
        assumed, stated = facescale.load(path, "cpu"), facescale.load(path, "cpu", contract="colour=BGR")
        assert (assumed.contract.colour, stated.contract.colour) != ("BGR", "RGB")
        assert stated.contract.colour == "BGR" and stated.info["contract"] == "stated by the user"
        size = stated.contract.size
        images = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), np.uint8)
        plain = facescale.load(path, "cpu", contract="colour=RGB")
        np.testing.assert_allclose(stated.embed(images), plain.embed(images[..., ::-1].copy()), atol=1e-5)
        assert stated.fingerprint != plain.fingerprint


def test_our_own_files_state_their_contract(tmp_path: Path, checkpoint: Path) -> None:
    ours = tmp_path / "net.safetensors"
    spec = {"name": "mbf_s", "embedding_size": 16, "options": {}}
    save_model(ours, torch.load(checkpoint), spec, Contract())
    with pytest.raises(ValueError, match=r"s' states its contract: 112x112, .*other projects only"):
        facescale.load(ours, "cpu", contract="mean=0")


def test_evaluate_and_embed_print_what_was_assumed(
    tmp_path: Path, facescale: Callable[..., tuple[int, str, str]]
) -> None:
    path = graph_file(tmp_path / "m.onnx", node("Sub", 127.5), node("Mul", 1 / 127.5))
    words = ["--device", "cpu", "--out"]
    drawn = "x=synthetic:pairs=8,folds=2"
    code, out, err = facescale("evaluate", str(path), "--on", drawn, *words, str(tmp_path / "p.html"))
    assert code == 0, err
    assert "contract: 32x32, (RGB 0..255 - 0) / 1, mirrored view added (probed: its first nodes" in out
    spec = "synthetic:ids=2,images=2,size=32"
    code, out, err = facescale(
        "embed", str(path), spec, *words, str(tmp_path / "e.npz"), "--contract", "flip=no"
    )
    assert code == 0, err
    assert "one view (stated by the user); state another one with --contract" in out
