"""Folders for others: the Hugging Face hub and the MFR benchmark."""

import json
import re
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import facescale
from facescale import backbones
from facescale.export.graph import ExportGraph, same_faces
from facescale.export.hub_card import BY_HAND, MARK
from facescale.export.huggingface import write_hub
from facescale.export.mfr import check_submission, write_submission
from facescale.export.onnx_writer import OnnxFile
from facescale.inference.model import Model
from facescale.model_card import Card, Contract

SPEC = {"name": "mbf_s", "embedding_size": 32, "options": {"input_size": 32}}


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    network = backbones.build("mbf_s", 32, input_size=32)
    network(torch.randn(16, 3, 32, 32))
    info = {"data": ["/home/somebody/faces/ms1m", "synthetic:ids=3"]}
    return Model.of(network.eval(), Card(Contract(size=32, colour="BGR", std=128.0), SPEC, info=info), "cpu")


def test_the_hub_folder_loads_and_its_card_tells_the_figures(model: Model, tmp_path: Path) -> None:
    folder = tmp_path / "face-net"
    done = write_hub(model, folder, licence="mit", check=["drawn=synthetic:pairs=400"])
    loaded = facescale.load(folder, "cpu")
    assert loaded.fingerprint == model.fingerprint
    text = (folder / "README.md").read_text()
    front = text.split("---")[1]
    assert 'license: "mit"' in front and "library_name: facescale" in front
    accuracy = done.figures["drawn/accuracy"]
    assert f"      value: {accuracy:.6f}" in front
    assert f"| drawn | accuracy | {accuracy:.4f} |" in text
    assert "| colour | BGR |" in text
    assert "| 0.1 | " in text and "| drawn |" in text
    assert "ms1m" in text and "somebody" not in text
    config = json.loads((folder / "config.json").read_text())
    assert config["backbone"] == SPEC and config["contract"]["std"] == 128.0
    assert config["fingerprint"] == model.fingerprint
    assert "somebody" not in str(loaded.info) + json.dumps(config)


def test_what_nobody_stated_is_said_to_be_not_stated(model: Model, tmp_path: Path) -> None:
    done = write_hub(model, tmp_path / "m", check=())
    text = (tmp_path / "m" / "README.md").read_text()
    assert done.licence == "not stated"
    assert "Not stated by whoever exported the model." in text
    assert "Not measured for this export." in text and "None was measured." in text


def test_a_card_marks_what_a_person_has_to_fill_in(model: Model, tmp_path: Path) -> None:
    done = write_hub(model, tmp_path / "m", check=())
    text = (tmp_path / "m" / "README.md").read_text()
    assert done.to_fill_in == tuple(BY_HAND)
    for heading, what in BY_HAND.items():
        assert f"## {heading}\n\n{MARK} {what}\n" in text


def test_what_a_person_filled_in_stays_when_the_card_is_written_again(model: Model, tmp_path: Path) -> None:
    page = tmp_path / "m" / "README.md"
    write_hub(model, tmp_path / "m", check=())
    mark = f"{MARK} {BY_HAND['Intended use']}"
    page.write_text(page.read_text().replace(mark, "Research.\n\n### Not for\n\nDoors.").replace("BGR", "?"))
    done = write_hub(model, tmp_path / "m", check=())
    text = page.read_text()
    assert "## Intended use\n\nResearch.\n\n### Not for\n\nDoors.\n" in text and "| colour | BGR |" in text
    assert done.to_fill_in == tuple(BY_HAND)[1:] and text.count(MARK) == len(BY_HAND) - 1


def test_the_page_on_model_cards_names_the_sections_of_a_card(tiny_run: Path, tmp_path: Path) -> None:
    write_hub(tiny_run, tmp_path / "m")
    written = re.findall(r"^## (.+)$", (tmp_path / "m" / "README.md").read_text(), re.M)
    page = (Path(__file__).parents[2] / "docs" / "model_card.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([A-Z][^|]*) \| (export|you) \|", page, re.M)
    assert [name for name, _ in rows] == written
    assert [name for name, who in rows if who == "you"] == list(BY_HAND)
    assert all(what in page for what in BY_HAND.values())


def test_the_card_of_a_run_shows_its_config_without_paths(tiny_run: Path, tmp_path: Path) -> None:
    write_hub(tiny_run, tmp_path / "m")
    text = (tmp_path / "m" / "README.md").read_text()
    assert '[eval.sets]\nunseen = "synthetic:pairs=20"' in text
    assert "| unseen | accuracy |" in text


def test_a_submission_takes_what_the_server_feeds_whatever_the_contract(model: Model, tmp_path: Path) -> None:
    done = write_submission(model, tmp_path / "s", check=["drawn=synthetic:pairs=40"], max_drop=0.05)
    with zipfile.ZipFile(tmp_path / "s" / "submission.zip") as archive:
        assert archive.namelist() == ["model.onnx"]
    faces = np.random.default_rng(0).integers(0, 256, (4, 112, 112, 3), np.uint8)
    fed = ((faces.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2)
    (rows,) = onnxruntime.InferenceSession(tmp_path / "s" / "model.onnx").run(None, {"images": fed})
    expected = model.embed_raw(same_faces(faces, 32))
    assert np.abs(rows - expected).max() < 0.01 * np.abs(expected).max()
    assert done.milliseconds > 0
    assert done.checks["weights"] == "fp32" and done.checks["embedding"] == "32-d"
    assert onnx.load(tmp_path / "s" / "model.onnx").opset_import[0].version == 13


def test_what_the_server_refuses_is_refused(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def file(half: bool = False, side: int = 112) -> onnx.ModelProto:
        graph = ExportGraph(model.module, Card(model.contract, SPEC), Contract(size=side))
        return OnnxFile(graph, 13, half).model

    check_submission(file())
    with pytest.raises(ValueError, match=r"weights is 16 bits or fewer in .* and must be fp32"):
        check_submission(file(half=True))
    with pytest.raises(ValueError, match=r"input is \['batch', 3, 32, 32\] and must be one input"):
        check_submission(file(side=32))
    named = file()
    named.graph.node[0].name = "Sub_0"
    with pytest.raises(ValueError, match="node names is Sub_0 and must be none that begins with Sub or Mul"):
        check_submission(named)
    monkeypatch.setattr("facescale.export.mfr._MAX_DIMENSION", 16)
    with pytest.raises(ValueError, match="embedding is 32-d and must be at most 16-d"):
        check_submission(file())


def test_the_command_writes_both_layouts(facescale, tiny_run: Path, tmp_path: Path) -> None:
    code, out, err = facescale(
        "export",
        str(tiny_run),
        "--layout",
        "huggingface",
        "--out",
        str(tmp_path / "h"),
        "--info",
        "licence=mit",
    )
    assert (code, err) == (0, "")
    assert "licence mit" in out and "unseen/accuracy" in out
    words = ["export", str(tiny_run), "--layout", "mfr", "--out", str(tmp_path / "s"), "--max-drop", "0.2"]
    code, out, _ = facescale(*words)
    assert code == 0
    assert "submission.zip" in out and "embedding: 32-d" in out
    code, _, err = facescale(*words, "--info", "a=b")
    assert code == 2 and "layout mfr has no place for --info" in err
