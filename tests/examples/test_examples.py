"""Every script of examples/ runs, on a tiny run and drawn faces."""

import base64
import io
import json
import runpy
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facescale.data.synthetic.faces import SyntheticFaces
from facescale.export.write import export
from facescale.inference.load import load
from facescale.inference.weights import save_model
from facescale.model_card import Threshold

EXAMPLES = Path(__file__).parents[2] / "examples"
Script = Callable[..., str]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Script:
    """Runs an example; returns what it printed."""

    def run(name: str, *words: object) -> str:
        monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def weights(trained_tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network with a threshold (its own protocol is too small for one)."""
    model = load(trained_tiny_run, "cpu")
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    threshold = {0.1: Threshold(0.99, 0.98, 0.995, "drawn")}
    assert model.card.backbone is not None
    save_model(path, model.module.state_dict(), model.card.backbone, model.contract, threshold)
    return path


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people, two aligned faces each."""
    reader, root = SyntheticFaces(2, 2, size=32), tmp_path_factory.mktemp("faces")
    for index in range(4):
        pixels, person = reader[index]
        path = root / f"person{person}" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert all(f'"{path.name}"' in text for path in EXAMPLES.glob("*.py"))


def test_verify(script: Script, weights: Path, faces: Path) -> None:
    photo = faces / "person0" / "0.png"
    assert script("verify.py", weights, photo, photo, 0.1) == "same person 1.000\n"


def test_enrol_and_search(script: Script, weights: Path, faces: Path, tmp_path: Path) -> None:
    assert script("enrol.py", weights, tmp_path / "g.gallery", faces) == "2 people with 4 photos\n"
    photo = faces / "person1" / "2.png"
    who, cosine = script("search.py", weights, tmp_path / "g.gallery", photo, 0.1).split()
    assert who in ("person0", "person1", "nobody") and 0 < float(cosine) <= 1


def test_finetune(script: Script, tiny_run: Path, faces: Path, tmp_path: Path) -> None:
    more = ["train.duration=2 steps", "train.batch_size=4"]
    out = script("finetune.py", tiny_run, faces, tmp_path / "new", *more)
    assert "unseen/accuracy: " in out and " after" in out


def test_export(script: Script, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("facescale.export.accuracy.require_accuracy", lambda *_: None)
    monkeypatch.setattr("facescale.export.checked.require_accuracy", lambda *_: None)
    out = script("export.py", tiny_run, tmp_path / "m.onnx", "drawn=synthetic:pairs=20")
    assert "drawn: " in out and "MB, checked on" in out


def test_the_service_of_onnx_runtime_alone(weights: Path, faces: Path, tmp_path: Path) -> None:
    export(weights, tmp_path / "m.onnx", uint8_input=True, unit_output=True)
    space = runpy.run_path(str(EXAMPLES / "onnx_service.py"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), space["handler"](space["Faces"](str(tmp_path / "m.onnx"))))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/compare"

    def ask(values: dict[str, object]) -> dict[str, object]:
        try:
            with urllib.request.urlopen(urllib.request.Request(url, json.dumps(values).encode())) as reply:
                return json.load(reply)  # type: ignore[no-any-return]
        except urllib.error.HTTPError as error:
            return json.load(error)  # type: ignore[no-any-return]

    def text(pixels: np.ndarray) -> str:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return base64.b64encode(file.getvalue()).decode()

    face = np.asarray(Image.open(faces / "person0" / "0.png").convert("RGB"))
    found = ask({"first": text(face), "second": text(face), "far": 0.1})
    assert found["same"] is True and found["cosine"] == pytest.approx(1, abs=1e-5)
    assert "no threshold" in str(ask({"first": text(face), "second": text(face), "far": 0.5}))
    assert "pixels" in str(ask({"first": text(face[:9]), "second": text(face), "far": 0.1}))
    assert "KeyError" in str(ask({}))
    server.shutdown()
    server.server_close()
    thread.join(10)
