"""Options of the commands: each changes what it says it changes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from facescale import backbones, heads, load
from facescale.run import RunDir
from tests.wiring.toy import SETTINGS, SIZE, D, train_toy

Command = Callable[..., tuple[int, str, str]]
SET = [word for setting in SETTINGS for word in ("--set", setting)]


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; do not write into it."""
    return train_toy(tmp_path_factory.mktemp("commands")).run.path


@pytest.fixture(scope="module")
def large_faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures that are larger than the toy network's images."""
    from PIL import Image

    from tests.pictures import picture

    folder = tmp_path_factory.mktemp("faces")
    for number in range(4):
        path = folder / f"person{number % 2}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(picture(number, SIZE + 8)).save(path)
    return folder


def test_no_resume_refuses_a_run_that_has_begun(facescale: Command, tmp_path: Path) -> None:
    words = ["train", "--run", tmp_path / "run", "--device", "cpu", *SET]
    assert facescale(*words)[0] == 0
    code, _, err = facescale(*words, "--no-resume")
    assert code == 2 and "has checkpoints already" in err
    assert facescale(*words)[0] == 0


def test_train_takes_its_options(facescale: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    file = tmp_path / "config.toml"
    file.write_text("[train]\nseed = 5\n")
    code, out, _ = facescale(
        *("train", file, "--run", tmp_path / "run", "--device", "cpu", "--threads", 3, "--json", *SET)
    )
    assert code == 0
    kinds = [json.loads(line)["kind"] for line in out.splitlines()]
    assert [kind for kind in kinds if kind != "health"] == ["start", *["train"] * 6, "eval"]
    assert threads == [3]
    assert "seed = 5" in RunDir(tmp_path / "run").config.read_text()
    code, _, err = facescale("train", "--run", tmp_path / "other", "--device", "tpu", *SET)
    assert code == 2 and "tpu" in err


@pytest.mark.parametrize("opset", [14, 18])
def test_export_writes_the_operator_set(
    facescale: Command, toy_run: Path, opset: int, tmp_path: Path
) -> None:
    import onnx

    code, out, _ = facescale("export", toy_run, "--out", tmp_path / "m.onnx", "--opset", opset)
    assert code == 0 and f"opset {opset}" in out
    assert onnx.load(tmp_path / "m.onnx").opset_import[0].version == opset


def test_export_takes_its_other_options(
    facescale: Command, toy_run: Path, large_faces: Path, tmp_path: Path
) -> None:
    import onnx

    code, out, _ = facescale(
        *(
            "export",
            toy_run,
            "--out",
            tmp_path / "m.onnx",
            "--half-weights",
            "--uint8-input",
            "--unit-output",
        ),
        *("--info", "licence=none", "--images", large_faces, "--json"),
    )
    values = json.loads(out)
    assert code == 0 and str(large_faces) in values["checked_on"]
    model = onnx.load(tmp_path / "m.onnx")
    assert model.graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert any(x.data_type == onnx.TensorProto.FLOAT16 for x in model.graph.initializer)
    loaded = load(tmp_path / "m.onnx", device="cpu")
    assert loaded.encoder.unit_output and loaded.info["licence"] == "none"


def test_embed_scales_images_if_told_so(
    facescale: Command, toy_run: Path, large_faces: Path, tmp_path: Path
) -> None:
    words = ("embed", toy_run, large_faces, "--out", tmp_path / "e.npz", "--device", "cpu")
    code, out, err = facescale(*words)
    assert code != 0 or "skipped" in out, (code, out, err)
    code, out, err = facescale(*words, "--no-resize")
    assert code != 0 or "skipped" in out, (code, out, err)
    code, out, _ = facescale(*words, "--resize", "--batch-size", 3)
    assert code == 0 and out.startswith("4 embeddings in") and "skipped" not in out
    assert np.load(tmp_path / "e.npz")["embeddings"].shape == (4, D)


def test_convert_believes_the_origin_that_it_is_told(facescale: Command, tmp_path: Path) -> None:
    """The same keys are TFace's (RGB) and AdaFace's (BGR)."""
    net = backbones.build("ir18", 16)
    torch.save(net.state_dict(), tmp_path / "old.pth")
    for words, colour in (((), "RGB"), (("--origin", "AdaFace"), "BGR"), (("--origin", "CVLface"), "RGB")):
        out_path = tmp_path / "new.safetensors"
        code, out, err = facescale("convert", tmp_path / "old.pth", "--out", out_path, *words, "--json")
        assert code == 0, err
        values = json.loads(out)
        assert values["colour"] == colour and values["origin"] == (words[1] if words else "TFace")
        model = load(out_path, device="cpu")
        assert model.contract.colour == colour and model.info["origin"] == values["origin"]
    code, _, err = facescale("convert", tmp_path / "old.pth", "--out", out_path, "--origin", "nobody")
    assert code == 2 and "nobody" in err


def test_pairs_are_drawn_from_the_seed_in_the_number_and_folds_asked_for(
    facescale: Command, tmp_path: Path
) -> None:
    def drawn(name: str, *words: object) -> bytes:
        path = tmp_path / f"{name}.bin"
        data = f"synthetic:ids=12,images=3,size={SIZE}"
        code, out, err = facescale("pairs", data, "--out", path, "--num-pairs", 8, "--folds", 2, *words)
        assert code == 0 and "8 pairs in 2 folds" in out, err
        return path.read_bytes()

    assert drawn("a", "--seed", 1) == drawn("b", "--seed", 1)
    assert drawn("c", "--seed", 2) != drawn("a", "--seed", 1)
    assert drawn("d") == drawn("e", "--seed", 0)


def test_evaluate_takes_its_options(facescale: Command, toy_run: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    words = ("evaluate", toy_run, "--on", "mine=synthetic:pairs=40", "--out", page, "--device", "cpu")
    code, out, _ = facescale(*words, "--json", "--batch-size", 7)
    assert code == 0 and json.loads(out)["results"][0]["name"] == "mine" and page.is_file()
    with_pictures = page.read_text().count("<img")
    code, _, _ = facescale(*words, "--no-pictures")
    assert code == 0 and page.read_text().count("<img") < with_pictures


def test_plan_counts_the_bytes_of_networks_and_centres(facescale: Command) -> None:
    num_ids, extra = 5000, ["data.train=synthetic:ids=5000,images=2,size=32", "train.ema=0.9"]
    for name, momenta in (("sgd", 1), ("adamw", 2)):
        words = [*SET, *(w for s in [*extra, f"optim.name={name}"] for w in ("--set", s))]
        code, out, err = facescale("plan", *words, "--no-calibrate", "--device", "cpu", "--json")
        assert code == 0, err
        values = json.loads(out)
        net = backbones.build("toy", D)
        parameters = sum(4 * p.numel() for p in net.parameters())
        buffers = sum(x.numel() * x.element_size() for x in net.buffers())
        planned = values["backbone_bytes"]
        assert planned["weights"] == planned["average"] == parameters + buffers
        assert planned["gradients"] == parameters
        assert planned["optimizer"] == momenta * parameters
        counts = 4 * num_ids if name == "adamw" else 0
        assert values["heads"][0]["bytes"]["device"] == num_ids * D * 4 * (1 + momenta) + counts
        # what autograd saves: the inputs of convolution, batch norm, PReLU and linear layer
        kept = 16 * (3 * SIZE * SIZE + 3 * 64) * 4
        assert kept <= planned["activations"] < 2 * kept
        total = values["heads"][0]["total"]
        rest = values["heads"][0]["bytes"]["device"] + values["heads"][0]["bytes"]["transient"]
        batch = heads.Needs().batch_bytes(values["plan"]["part_batch"], D)
        parts = ("weights", "average", "gradients", "optimizer", "activations", "working")
        counted = sum(planned[part] for part in parts)
        assert total == rest + values["heads"][0]["bytes"]["host"] + counted + batch


def test_plan_divides_centres_between_processes(facescale: Command) -> None:
    words = [*SET, "--set", f"data.train=synthetic:ids=4000,images=2,size={SIZE}"]
    sizes = []
    for processes in (1, 4):
        code, out, _ = facescale("plan", *words, "--no-calibrate", "--processes", processes, "--json")
        assert code == 0
        sizes.append(json.loads(out)["heads"][0]["bytes"]["device"])
    assert sizes == [4000 * D * 8, 1000 * D * 8]


def test_edits_and_facts_reach_inspect_and_convert_data(
    facescale: Command, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    faces, edits = make_folder(), tmp_path / "edits.csv"  # identities of 2, 3 and 1 images
    edits.write_text("action,name,into\ndrop_identity,bob,\n")
    code, out, err = facescale("inspect", faces, "--edits", edits, "--json")
    assert code == 0 and json.loads(out)["images"] == 3, err
    packed = tmp_path / "packed"
    words = ("--edits", edits, "--form", "lmdb", "--info", "licence=CC0", "--info", "source=drawn")
    code, out, err = facescale("convert-data", faces, packed, *words)
    assert code == 0 and out.startswith("3 images of 2 identities"), err
    assert json.loads((packed / "dataset.json").read_text()) == {"licence": "CC0", "source": "drawn"}
    assert (packed / "data.mdb").is_file()


def test_inspect_verifies_and_fails_where_a_file_is_damaged(
    facescale: Command, make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    packed = tmp_path / "packed"
    facescale("convert-data", make_folder(), packed, "--form", "shards")
    code, out, err = facescale("inspect", packed, "--verify")
    assert code == 0 and out.splitlines()[-1] == "verified: nothing is wrong", err
    (packed / "labels.json").write_text('{"0": "eve"}')
    code, out, _ = facescale("inspect", packed, "--verify", "--json")
    assert code == 1 and "labels.json has 12 bytes" in json.loads(out)["problems"][0]
