"""The commands that tell people apart, on synthetic faces."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facescale import backbones
from facescale.data import open_reader
from facescale.data.loading.decode import encode_jpeg
from facescale.gallery.photos import aligned_only
from facescale.inference.weights import save_model
from facescale.model_card import Contract, Threshold

SPEC: dict[str, Any] = {"name": "mbf_s", "embedding_size": 32, "options": {"input_size": 56}}
PEOPLE, PHOTOS = 4, 3


@pytest.fixture(autouse=True)
def _without_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same faces are found whether a detector is installed or not."""
    monkeypatch.setattr("facescale.gallery.photos.face_finder", lambda: aligned_only)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with random weights and thresholds at two rates: high enough that nearly nobody passes."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    torch.manual_seed(0)
    net = backbones.build(SPEC["name"], SPEC["embedding_size"], **SPEC["options"])
    thresholds = {far: Threshold(cosine, cosine - 0.01, cosine + 0.01, "faces") for far, cosine in THRESHOLDS}
    save_model(path, net.state_dict(), SPEC, Contract(size=56), thresholds)
    return path


THRESHOLDS = ((1e-3, 0.9999), (0.1, -1.0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Aligned faces, a folder for each person; a text file and a photo of another size among them."""
    root = tmp_path_factory.mktemp("photos")
    reader = open_reader(f"synthetic:ids={PEOPLE},images={PHOTOS},size=56")
    for index, person in enumerate(reader.ids.tolist()):
        folder = root / f"person {person}"
        folder.mkdir(exist_ok=True)
        (folder / f"{index}.jpg").write_bytes(encode_jpeg(np.asarray(reader[index][0])))
    (root / "person 0" / "notes.txt").write_text("hello")
    (root / "person 1" / "wide.jpg").write_bytes(encode_jpeg(np.zeros((40, 80, 3), np.uint8)))
    return root


@pytest.fixture
def gallery(facescale, model: Path, photos: Path, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    path = tmp_path / "people.gallery"
    code, out, _ = facescale("enrol", str(path), str(photos), "--model", str(model))
    assert code == 0
    assert "left out" in out and "wide.jpg: it is 80x40 pixels and not an aligned face of 112x112" in out
    assert f"4 people with 12 photos are enrolled in {path}" in out
    return path


def test_an_enrolled_photo_finds_its_person(facescale, gallery: Path, photos: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = facescale("search", str(gallery), str(photos / "person 2"), "--far", "0.1", "--json")
    found = json.loads(out)
    assert code == 0 and len(found["photos"]) == PHOTOS and found["measured_on"] == "faces"
    assert {row["who"] for row in found["photos"]} == {"person 2"}
    assert found["strangers_named"] == pytest.approx(1 - 0.9**PEOPLE)
    for row in found["photos"]:
        assert row["cosine"] == row["best"][0]["cosine"] >= row["best"][1]["cosine"]
        assert row["margin"] == pytest.approx(row["best"][0]["cosine"] - row["best"][1]["cosine"])


def test_below_the_threshold_it_is_nobody(facescale, gallery: Path, photos: Path) -> None:  # type: ignore[no-untyped-def]
    photo = str(next((photos / "person 3").glob("*.jpg")))
    code, out, _ = facescale("search", str(gallery), photo)
    assert code == 0 and f"{photo}: nobody (nearest: person 3 0." in out
    assert "threshold 1.000: false-accept rate 0.001, measured on faces" in out
    assert "compared with 4 people: up to 0.399% of strangers are taken for one of them" in out


def test_two_photos_are_compared(facescale, model: Path, photos: Path) -> None:  # type: ignore[no-untyped-def]
    first, second = sorted((photos / "person 0").glob("*.jpg"))[:2]
    code, out, _ = facescale("verify", str(first), str(first), "--model", str(model))
    assert code == 0 and out.startswith("the same person: cosine 1.000, threshold 1.000 at a false-accept")
    code, out, _ = facescale("verify", str(first), str(second), "--model", str(model), "--json")
    assert code == 0 and json.loads(out)["same"] is False


def test_a_rate_that_was_not_measured_is_refused(facescale, model: Path, photos: Path) -> None:  # type: ignore[no-untyped-def]
    photo = str(next((photos / "person 0").glob("*.jpg")))
    code, _, err = facescale("verify", photo, photo, "--model", str(model), "--far", "1e-6")
    assert code == 2
    assert "has no threshold at a false-accept rate of 1e-06: it has thresholds at 0.001, 0.1" in err
    assert "use the nearest, --far 0.001, or measure one" in err


def test_a_photo_that_is_not_aligned_is_one_sentence(facescale, model: Path, photos: Path) -> None:  # type: ignore[no-untyped-def]
    wide = str(photos / "person 1" / "wide.jpg")
    code, out, err = facescale("verify", wide, wide, "--model", str(model))
    assert (code, out) == (2, "") and "wide.jpg' cannot be compared: it is 80x40 pixels" in err


def test_another_model_is_refused(facescale, gallery: Path, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    other = tmp_path / "other.safetensors"
    net = backbones.build(SPEC["name"], SPEC["embedding_size"], **SPEC["options"])
    save_model(other, net.state_dict(), SPEC, Contract(size=56))
    code, _, err = facescale("search", str(gallery), str(photos / "person 0"), "--model", str(other))
    assert code == 2 and "their embeddings cannot be compared" in err


def test_a_gallery_whose_model_has_moved_asks_for_it(facescale, gallery: Path, photos: Path) -> None:  # type: ignore[no-untyped-def]
    import sqlite3

    with sqlite3.connect(gallery) as db:
        db.execute("UPDATE meta SET value = '/gone/model.safetensors' WHERE key = 'model'")
    db.close()
    code, _, err = facescale("search", str(gallery), str(photos / "person 0"))
    assert code == 2 and "was at '/gone/model.safetensors'; say where it is with --model" in err


def test_the_gallery_is_changed_by_commands(facescale, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    assert facescale("gallery", "rename", str(gallery), "person 0", "Ada")[0] == 0
    assert facescale("gallery", "merge", str(gallery), "Ada", "person 1")[0] == 0
    code, out, _ = facescale("gallery", "list", str(gallery), "--json")
    listed = {row["name"]: row["photos"] for row in json.loads(out)}
    assert code == 0 and listed == {"Ada": 6, "person 2": 3, "person 3": 3}
    photo = json.loads(out)[0]["files"].split(", ")[0]
    assert facescale("gallery", "split", str(gallery), "Ada", "Bob", photo)[0] == 0
    assert facescale("gallery", "remove", str(gallery), "person 2")[0] == 0
    _, out, _ = facescale("gallery", "list", str(gallery))
    assert "Bob" in out and "person 2" not in out
    code, _, err = facescale("gallery", "remove", str(gallery), "Eve")
    assert code == 2 and "nobody called 'Eve'" in err


def test_people_who_are_too_alike_are_listed(facescale, gallery: Path) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = facescale("gallery", "check", str(gallery), "--far", "0.1")
    assert code == 0 and "person 0 and person 1 are too alike" in out.replace("person 1 and person 0", "")
    code, out, _ = facescale("gallery", "check", str(gallery), "--json")
    assert code == 0 and len(json.loads(out)["nearest"]) == PEOPLE


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("enrol", "new.gallery", "PHOTOS"), "does not exist yet; say which --model it is for"),
        (("enrol", "new.gallery", "PHOTOS/person 0", "--model", "MODEL"), "has no folder with photos"),
        (
            ("enrol", "new.gallery", "nowhere", "--model", "MODEL"),
            "'nowhere' does not exist; give the folder that",
        ),
        (
            ("enrol", "new.gallery", "PACKED", "--model", "MODEL"),
            "is a packed data set and has no folder with",
        ),
        (("search", "no.gallery", "PHOTOS/person 0"), "'no.gallery' does not exist"),
        (("search", "GALLERY", "nowhere"), "'nowhere' does not exist; give a photo or a folder of photos"),
        (("search", "GALLERY", "PHOTOS"), "holds no photo; photos in its folders are not searched"),
    ],
)
def test_mistakes_are_sentences(  # type: ignore[no-untyped-def]
    facescale, gallery: Path, photos: Path, model: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "train.rec").write_bytes(b"")
    places = {"GALLERY": str(gallery), "PHOTOS": str(photos), "MODEL": str(model), "PACKED": str(packed)}
    for name, path in places.items():
        words = tuple(word.replace(name, path) for word in words)
    code, out, err = facescale(*words)
    assert (code, out) == (2, "") and message in err, err


def test_an_index_is_made_and_used_when_asked_for(  # type: ignore[no-untyped-def]
    facescale, model: Path, gallery: Path, photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("faiss")
    folder = str(photos / "person 2")
    exact = json.loads(facescale("search", str(gallery), folder, "--far", "0.1", "--json", "--no-index")[1])
    index = Path(f"{gallery}.index")
    assert not index.exists()
    code, out, _ = facescale("search", str(gallery), folder, "--far", "0.1", "--index")
    assert code == 0 and f"an index of 4 people was made, since there is no index at '{index}'" in out
    found = json.loads(facescale("search", str(gallery), folder, "--far", "0.1", "--json", "--index")[1])
    assert found["index"] == "" and [row["who"] for row in found["photos"]] == ["person 2"] * PHOTOS
    for one, other in zip(found["photos"], exact["photos"], strict=True):
        assert one["cosine"] == pytest.approx(other["cosine"], abs=1e-6)
    code, out, _ = facescale("gallery", "index", str(gallery))
    assert (code, out) == (0, f"{index} is the index of 4 people\n")
    other = tmp_path / "other.gallery"
    code, out, _ = facescale("enrol", str(other), str(photos), "--model", str(model), "--index")
    assert code == 0 and out.endswith(f"index: {other}.index\n")


def test_an_index_without_its_extra_names_it(facescale, monkeypatch, gallery: Path, photos: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "faiss", None)
    for words in (
        ["search", str(gallery), str(photos / "person 0"), "--far", "0.1", "--index"],
        ["enrol", str(gallery), str(photos), "--index"],
        ["gallery", "index", str(gallery)],
    ):
        code, _, err = facescale(*words)
        assert code == 2 and "an index needs faiss; install it with: pip install 'facescale[index]'" in err
