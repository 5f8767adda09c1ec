"""The commands for one's own photos, as README and quick start print them, are run one after the other."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from facescale.data import open_reader
from facescale.data.loading.decode import encode_jpeg
from facescale.prepare import detect
from facescale.prepare.align import SIZE, TEMPLATE

ROOT = Path(__file__).parents[2]
BORDER = 12  # pixels around a face, so that a photo is not taken for an aligned face
FOLDERS = {"photos": (3, 4), "photos_test": (10, 5), "photos_known": (3, 2), "more_faces": (4, 2)}
SHORT = ["--set", "train.duration=2 steps", "--set", "train.batch_size=8", "--set", "eval.every=2 steps"]
NOT_RUN = ("serve",)  # runs until it is stopped


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and text of every code block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def commands(block: str) -> list[list[str]]:
    """The facescale commands of a block, without that word."""
    lines = block.replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("facescale ")]


def printed_commands(text: str) -> list[list[str]]:
    """The facescale commands of all code blocks, in order."""
    return [words for language, block in blocks(text) if not language for words in commands(block)]


def own_photos(page: str) -> list[list[str]]:
    text = (ROOT / page).read_text(encoding="utf-8")
    if page == "README.md":
        text = text.partition("## Your own photos")[2].partition("## Features")[0]
    return [words for words in printed_commands(text) if words[0] not in NOT_RUN]


def draw_photos(folder: Path, people: int, images: int, seed: int) -> None:
    """Drawn faces with a border, in a folder for each person."""
    reader = open_reader(f"synthetic:ids={people},images={images},seed={seed}")
    for index, person in enumerate(reader.ids.tolist()):
        photo = np.pad(
            np.asarray(reader[index][0]), ((BORDER, BORDER), (BORDER, BORDER), (0, 0)), mode="edge"
        )
        path = folder / f"person {person}" / f"{index}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_jpeg(photo))


@pytest.fixture
def _photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders that the pages name, and a detector that knows where the drawn faces are."""
    for seed, (name, (people, images)) in enumerate(FOLDERS.items()):
        draw_photos(tmp_path / name, people, images, seed)
    for name, image in (("photo", 0), ("a", 0), ("b", 1)):
        shutil.copy(tmp_path / "photos_known" / "person 0" / f"{image}.jpg", tmp_path / f"{name}.jpg")
    face = detect.Face((BORDER, BORDER, BORDER + SIZE, BORDER + SIZE), TEMPLATE + BORDER, 1.0)
    for place in ("facescale.prepare.examine", "facescale.gallery.photos"):
        monkeypatch.setattr(f"{place}.find_faces", lambda detector, photo: [face])
        monkeypatch.setattr(f"{place}.build_detector", lambda *settings: None)
    monkeypatch.setattr("facescale.prepare.detect.available_detector", lambda: "yuface")
    monkeypatch.setattr("facescale.gallery.photos.available_detector", lambda: "yuface")
    monkeypatch.setattr("facescale.prepare.workers.default_workers", lambda: 1)
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("_photos")
def test_the_commands_for_own_photos_work_as_printed(facescale) -> None:  # type: ignore[no-untyped-def]
    """Those of the README, then what the quick start has beyond them."""
    told, readme = {}, own_photos("README.md")
    for words in readme + [words for words in own_photos("docs/quickstart.md") if words not in readme]:
        short = SHORT if words[0] in ("train", "finetune") else []
        code, out, err = facescale(*words, *short)
        assert code == 0, f"facescale {shlex.join(words)}: {err}"
        told[words[0]] = out
    assert "people with 6 photos are enrolled in people.gallery" in told["enrol"]
    assert told["search"].startswith("photo.jpg: ") and "false-accept rate 0.01" in told["search"]
    assert "cosine" in told["verify"]
    assert Path("face.onnx").is_file() and Path("runs/mine/report.html").is_file()


def test_the_pages_lead_from_photos_to_who_is_this() -> None:
    for page in ("README.md", "docs/quickstart.md"):
        names = [words[0] for words in own_photos(page)]
        order = ("prepare", "pairs", "train", "evaluate", "enrol", "search", "verify")
        assert [name for name in dict.fromkeys(names) if name in order] == list(order), page
