"""The service: right answers to many at once, sentences to hostile requests, nothing kept."""

import base64
import io
import json
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from facescale.gallery.gallery import Face, Gallery
from facescale.gallery.photos import aligned_only
from facescale.inference.model import Model
from facescale.model_card import Card, Contract, Threshold

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import uvicorn
from starlette.testclient import TestClient

from facescale.serve.app import build_app
from facescale.serve.service import FaceService, Limits

FAR = 0.01


class Corners(nn.Module):
    """Pooled pixels, centred: alike for alike pictures."""

    embedding_size = 48
    input_size = 112

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)
        return pooled - pooled.mean(1, keepdim=True)


def picture(seed: int) -> np.ndarray:
    """A smooth picture of 112 pixels; seeds differ."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((112, 112), Image.Resampling.NEAREST))


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture(scope="module")
def model() -> Model:
    thresholds = {FAR: Threshold(0.9, 0.85, 0.95, "drawn")}
    return Model.of(
        Corners().eval(), Card(Contract(flip=False), None, thresholds, fingerprint="f" * 32), "cpu"
    )


@pytest.fixture
def gallery(model: Model, tmp_path: Path) -> Gallery:
    found = Gallery.create(tmp_path / "people.gallery", model.fingerprint, 48, "m")
    for seed in range(8):
        (row,) = model.embed(picture(seed)[None])
        found.add(f"person{seed}", [Face(f"{seed}.png", row)])
    return found


@pytest.fixture
def client(model: Model, gallery: Gallery) -> TestClient:
    limits = Limits(photo_bytes=200_000, pixels=1_000_000, seconds=20)
    return TestClient(build_app(FaceService(model, aligned_only, gallery, limits)), "http://localhost")


def compare(client: TestClient, first: bytes, second: bytes, far: Any = FAR) -> Any:
    return client.post("/api/compare", json={"first": text(first), "second": text(second), "far": far})


def test_two_photos_are_compared_and_their_crops_come_back(client: TestClient) -> None:
    same = compare(client, png(picture(1)), png(picture(1))).json()
    assert same["same"] is True and same["cosine"] == pytest.approx(1)
    assert (same["threshold"], same["far"], same["measured_on"]) == (0.9, FAR, "drawn")
    crop = np.asarray(Image.open(io.BytesIO(base64.b64decode(same["crops"][0]))))
    np.testing.assert_array_equal(crop, picture(1))
    assert compare(client, png(picture(1)), png(picture(2))).json()["same"] is False


def test_a_gallery_is_searched_and_strangers_are_nobody(client: TestClient) -> None:
    found = client.post("/api/search", json={"photo": text(png(picture(3))), "far": FAR, "top": 2}).json()
    assert found["who"] == "person3" and len(found["best"]) == 2 and found["margin"] > 0
    assert (
        client.post("/api/search", json={"photo": text(png(picture(99))), "far": FAR}).json()["who"] is None
    )


def test_the_page_and_the_model_are_told(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "Drop a photo" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    about = client.get("/api/model").json()
    assert (about["fars"], about["people"]) == ([FAR], 8)


def test_the_guide_names_the_fields_of_every_answer(client: TestClient) -> None:
    photo = text(png(picture(3)))
    answers = {
        "POST /api/compare": compare(client, png(picture(1)), png(picture(2))).json(),
        "POST /api/search": client.post("/api/search", json={"photo": photo, "far": FAR}).json(),
        "GET /api/model": client.get("/api/model").json(),
    }
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")
    for request, answer in answers.items():
        (row,) = re.findall(rf"^\| `{request}` \|.*\|(.*)\|$", guide, re.MULTILINE)
        inner = {"name", "cosine"} if "best" in answer else set()
        assert set(re.findall(r"`(\w+)`", row)) == answer.keys() | inner, request


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that claims side x side pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


HOSTILE = {
    "100 megapixels": (bomb(10_000), "10000x10000, more than the 1,000,000 pixels allowed"),
    "gigapixels": (bomb(60_000), "first photo cannot be used"),
    "text": (b"hello", "the first photo cannot be used"),
    "nothing": (b"", "the first photo cannot be used"),
    "a page that begins like a GIF": (b"GIF89a<script>alert(1)</script>", "the first photo cannot be used"),
    "cut short": (png(picture(0))[:300], "the first photo cannot be used"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "the first photo cannot be used"),
    "zip behind a picture, of another size": (png(picture(0)[:50]) + b"PK\3\4", "not an aligned face"),
    "too many bytes": (b"\xff" * 200_001, "200,001 bytes, more than 200,000"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_photo_gets_a_sentence(client: TestClient, name: str) -> None:
    data, sentence = HOSTILE[name]
    reply = compare(client, data, png(picture(1)))
    assert reply.status_code == 400 and sentence in reply.json()["error"]
    assert compare(client, png(picture(1)), png(picture(1))).json()["same"] is True, "it serves on"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("{", "the body is not JSON"),
        ("[" * 100_000, "the body is not JSON"),
        ("[1]", "the body is not a JSON object"),
        ('{"first": "../../etc/passwd", "second": "", "far": 0.01}', "'first' is not base64"),
        ('{"first": 5}', "'first' is missing; it is a photo as base64"),
        ('{"first": "", "second": ""}', "'far' is missing; it is a false-accept rate, such as 0.01"),
        ('{"first": "", "second": "", "far": NaN}', "'far' = nan must be a number above 0"),
        ('{"first": "", "second": "", "far": "x"}', "'far' = 'x' must be a number above 0"),
    ],
)
def test_a_malformed_request_gets_a_sentence(client: TestClient, body: str, sentence: str) -> None:
    reply = client.post("/api/compare", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 400 and sentence in reply.json()["error"]


def test_what_the_model_or_gallery_cannot_answer_is_said(
    client: TestClient, model: Model, tmp_path: Path
) -> None:
    reply = compare(client, png(picture(1)), png(picture(1)), 1e-5)
    assert "no threshold at a false-accept rate of 1e-05" in reply.json()["error"]
    for top, sentence in ((0, "top = 0 must be 1 to 100 people"), ("x", "top = 'x' must be a whole number")):
        reply = client.post("/api/search", json={"photo": text(png(picture(1))), "far": FAR, "top": top})
        assert sentence in reply.json()["error"]
    alone = TestClient(build_app(FaceService(model, aligned_only)), "http://localhost")
    reply = alone.post("/api/search", json={"photo": text(png(picture(1))), "far": FAR})
    assert "this service has no gallery; start it with --gallery GALLERY" in reply.json()["error"]
    empty = Gallery.create(tmp_path / "empty.gallery", model.fingerprint, 48, "m")
    alone = TestClient(build_app(FaceService(model, aligned_only, empty)), "http://localhost")
    reply = alone.post("/api/search", json={"photo": text(png(picture(1))), "far": FAR})
    assert "the gallery is empty; add people with: facescale enrol" in reply.json()["error"]


def test_a_gallery_that_was_damaged_meanwhile_gets_a_sentence(client: TestClient, gallery: Gallery) -> None:
    gallery.path.write_bytes(b"not a database" * 1000)
    reply = client.post("/api/search", json={"photo": text(png(picture(1))), "far": FAR})
    assert reply.status_code == 400 and "file is not a database" in reply.json()["error"]


def test_only_json_within_the_limit_and_to_this_host_is_read(client: TestClient) -> None:
    reply = client.post("/api/compare", content=b"first=x")
    assert reply.status_code == 415 and "Content-Type: application/json" in reply.json()["error"]
    kind = {"Content-Type": "application/json"}
    reply = client.post("/api/compare", content=b"x" * 700_000, headers=kind)
    assert reply.status_code == 413 and "700000 bytes, more than" in reply.json()["error"]
    endless = (b"x" * 100_000 for _ in range(1000))
    reply = client.post("/api/compare", content=endless, headers=kind)
    assert reply.status_code == 413 and "more than the" in reply.json()["error"]
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_an_answer_that_takes_too_long_is_given_up(model: Model) -> None:
    release = threading.Event()

    def slow(photo: np.ndarray, size: int) -> Any:
        release.wait(1)
        return aligned_only(photo, size)

    client = TestClient(build_app(FaceService(model, slow, limits=Limits(seconds=0.2))), "http://localhost")
    reply = compare(client, png(picture(1)), png(picture(1)))
    release.set()
    assert reply.status_code == 503 and "the answer took too long; try again (0.2 s)" in reply.json()["error"]


def test_faces_are_kept_only_where_a_folder_is_named(model: Model, tmp_path: Path) -> None:
    for keep in (None, tmp_path / "kept"):
        if keep:
            keep.mkdir()
        service = FaceService(model, aligned_only, keep=keep)
        service.compare(png(picture(1)), png(picture(2)), FAR)
        assert len(list(tmp_path.rglob("*.png"))) == (2 if keep else 0)


def test_another_model_s_gallery_is_refused(model: Model, gallery: Gallery) -> None:
    other = Model.of(Corners().eval(), Card(Contract(flip=False), fingerprint="0" * 32), "cpu")
    with pytest.raises(ValueError, match="model"):
        FaceService(other, aligned_only, gallery)


def test_a_missing_extra_is_named(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    with pytest.raises(ValueError, match=r"serve needs starlette and uvicorn; .*facescale\[serve\]"):
        build_app(FaceService(model, aligned_only))


@pytest.fixture
def address(model: Model, gallery: Gallery) -> Iterator[str]:
    """A server on loopback."""
    app = build_app(FaceService(model, aligned_only, gallery, Limits(seconds=60)), ("127.0.0.1",))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        thread.join(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(20)


def post(url: str, values: dict[str, Any]) -> Any:
    request = urllib.request.Request(url, json.dumps(values).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as reply:
        return json.load(reply)


def test_32_clients_at_once_get_their_own_answers(address: str) -> None:
    def ask(client: int) -> list[bool]:
        right = []
        for turn in range(3):
            seed = (client + turn) % 12
            found = post(f"{address}/api/search", {"photo": text(png(picture(seed))), "far": FAR})
            right.append(found["who"] == (f"person{seed}" if seed < 8 else None))
            other = (seed + client % 2) % 12
            pair = {"first": text(png(picture(seed))), "second": text(png(picture(other))), "far": FAR}
            right.append(post(f"{address}/api/compare", pair)["same"] is (seed == other))
        return right

    with ThreadPoolExecutor(32) as clients:
        assert all(all(right) for right in clients.map(ask, range(32)))


def test_a_browser_shows_the_page(address: str) -> None:
    browser = next(
        (b for b in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if b), None
    )
    if browser is None:
        pytest.skip("skipped: no browser")
    words = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        "--dump-dom",
    ]
    done = subprocess.run([*words, address], capture_output=True, text=True, timeout=120)
    assert "Model ffffffff, 8 people in the gallery." in done.stdout
    assert "<option>0.01</option>" in done.stdout
