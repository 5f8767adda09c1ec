"""Golden section G through the command line: .bin files and an ONNX file, written here, give its figures."""

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIZE = 16  # the smallest that a contract allows; golden images have 4 pixels, each 4 x 4 here


def png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def numbered(index: int) -> bytes:
    """An image whose colour is a number."""
    return png(np.full((SIZE, SIZE, 3), [index & 255, index >> 8 & 255, index >> 16], np.uint8))


def write_onnx(path: Path, nodes: list[Any], tensors: dict[str, np.ndarray], width: int) -> None:
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", kind, ["n", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("embeddings", kind, ["n", width])],
        [onnx.numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))


def write_table(path: Path, rows: np.ndarray) -> None:
    """A network that reads the number of an image and looks its embedding up."""
    node = onnx.helper.make_node
    nodes = [
        node("GlobalAveragePool", ["images"], ["colour"]),
        node("Mul", ["colour", "half"], ["scaled"]),
        node("Add", ["scaled", "half"], ["bytes"]),
        node("Flatten", ["bytes"], ["flat"]),
        node("MatMul", ["flat", "places"], ["number"]),
        node("Round", ["number"], ["rounded"]),
        node("Cast", ["rounded"], ["index"], to=onnx.TensorProto.INT64),
        node("Reshape", ["index", "one"], ["list"]),
        node("Gather", ["rows", "list"], ["embeddings"]),
    ]
    tensors = {
        "half": np.float32(127.5).reshape(()),
        "places": np.array([[1], [256], [65536]], np.float32),
        "one": np.array([-1], np.int64),
        "rows": rows.astype(np.float32),
    }
    write_onnx(path, nodes, tensors, rows.shape[1])


def write_bin(path: Path, images: list[bytes], is_same: np.ndarray) -> None:
    path.write_bytes(pickle.dumps((images, [bool(same) for same in is_same])))


def angles(score: np.ndarray) -> np.ndarray:
    """Rows 2i and 2i + 1 whose cosine is score i."""
    rows = np.zeros((2 * len(score), 2))
    rows[0::2, 0] = 1
    rows[1::2] = np.stack([score, np.sqrt(1 - np.square(score.astype(np.float64)))], axis=1)
    return rows


def test_golden_verification_figures_from_the_command_line(
    golden: Path, facescale: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    expected = json.loads((golden / "G_verification.json").read_text())
    z = np.load(golden / "G_verification.npz")
    sets = {name: (z[f"{name}/embeddings"], z[f"{name}/issame"]) for name in ("easy", "hard", "uneven")}
    rules = {"ffc_lfw": "ffc", "ffc_ytf": "ffc_video"}
    sets |= {name: (angles(z[f"{name}/score"]), z[f"{name}/label"] == 1) for name in rules}
    width = max(rows.shape[1] for rows, _ in sets.values())
    table = [
        np.pad(rows.astype(np.float64), [(0, 0), (0, width - rows.shape[1])]) for rows, _ in sets.values()
    ]
    write_table(tmp_path / "net.onnx", np.concatenate(table))
    first, words = 0, []
    for name, (rows, is_same) in sets.items():
        write_bin(tmp_path / f"{name}.bin", [numbered(first + i) for i in range(len(rows))], is_same)
        first += len(rows)
        rule = f"?rule={rules[name]}" if name in rules else ""
        words += ["--on", f"{name}={tmp_path}/{name}.bin{rule}"]
    code, out, err = facescale("evaluate", str(tmp_path / "net.onnx"), *words, "--no-pictures", "--json")
    assert code == 0, err
    for one in json.loads(out)["results"]:
        found, answer = one["accuracy"], expected[one["name"]]
        np.testing.assert_allclose(found["folds"], answer["accuracy_per_fold"], rtol=0, atol=1e-7)
        if one["name"] in rules:
            np.testing.assert_allclose(found["cosine_thresholds"], answer["threshold_per_fold"], atol=1e-6)
            if "accuracy_std_over_sqrt10" in answer:
                assert found["std"] == pytest.approx(answer["accuracy_std_over_sqrt10"], abs=1e-7)
            continue
        assert found["squared_distance_thresholds"] == answer["best_threshold_per_fold"]
        assert found["std"] == pytest.approx(answer["accuracy_std"], abs=1e-12)
        for ours, theirs in (("val", "val"), ("val_std", "val_std"), ("val_far", "far")):
            assert found[ours] == pytest.approx(answer[theirs], abs=1e-9)


def test_golden_pipeline_from_images_in_a_bin_to_accuracy(
    golden: Path, facescale: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    answer = json.loads((golden / "G_verification.json").read_text())["pipeline"]
    z = np.load(golden / "G_verification.npz")
    weight = z["pipeline/W"].astype(np.float32)
    node = onnx.helper.make_node
    nodes = [
        node("AveragePool", ["images"], ["pixels"], kernel_shape=[4, 4], strides=[4, 4]),
        node("Flatten", ["pixels"], ["flat"]),
        node("MatMul", ["flat", "w"], ["embeddings"]),
    ]
    write_onnx(tmp_path / "net.onnx", nodes, {"w": weight}, weight.shape[1])
    large = z["pipeline/images"].transpose(0, 2, 3, 1).repeat(4, axis=1).repeat(4, axis=2)
    images = [png(np.ascontiguousarray(image)) for image in large]
    write_bin(tmp_path / "set.bin", images, z["pipeline/issame"])
    net, protocol = str(tmp_path / "net.onnx"), f"set={tmp_path}/set.bin"
    code, out, err = facescale("evaluate", net, "--on", protocol, "--no-pictures", "--json")
    assert code == 0, err
    (found,) = json.loads(out)["results"]
    assert found["accuracy"]["mean"] == pytest.approx(answer["acc2"], abs=1e-12)
    assert found["accuracy"]["std"] == pytest.approx(answer["std2"], abs=1e-12)
    assert found["mean_norm"] == pytest.approx(answer["xnorm"], rel=1e-5)
