"""Photos as a data source, and the command that embeds them."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from facescale.data.readers.base import BadRecordError
from facescale.gallery import photo_reader
from facescale.gallery.photo_reader import FacesOfPhotos, faces_of, photo_paths
from facescale.gallery.photos import FoundFace
from facescale.inference.load import load


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photos, one of them in a folder, a text file and a hidden one."""
    rng = np.random.default_rng(0)
    for name, side in (("a.png", 32), ("inner/b.jpg", 80), (".c.png", 32)):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), np.uint8)).save(path)
    (tmp_path / "photos" / "notes.md").write_text("hello")
    return tmp_path / "photos"


def middle(photo_HW3: np.ndarray, size: int) -> FoundFace:
    if len(photo_HW3) < 60:
        raise ValueError("no face was found")
    return FoundFace(photo_HW3[:size, :size])


def test_photos_are_named_by_file_list_or_folder(photos: Path) -> None:
    both = [photos / "a.png", photos / "inner" / "b.jpg"]
    assert photo_paths(photos) == both
    assert photo_paths(photos / "a.png") == both[:1]
    (photos / "list.txt").write_text("inner/b.jpg\n\na.png\n")
    assert photo_paths(photos / "list.txt") == both[::-1]
    for nothing in (photos / "gone", photos / "inner" / "none"):
        with pytest.raises(ValueError, match=r"names no photo; give a photo, a \.txt list"):
            photo_paths(nothing)


def test_the_face_of_a_photo_is_its_image(photos: Path) -> None:
    reader = FacesOfPhotos(photo_paths(photos), middle, 56)
    assert len(reader) == 2 and reader.ids.tolist() == [-1, -1]
    assert reader[1][0].shape == (56, 56, 3) and reader.key(1).endswith("b.jpg")
    with pytest.raises(BadRecordError, match="no face was found"):
        reader[0]


def test_a_data_set_is_left_to_the_readers(photos: Path) -> None:
    assert faces_of(str(photos), 56, detect=False) is None
    assert faces_of("synthetic:ids=2,images=2", 56, detect=False) is None


def test_the_command_embeds_photos_with_detection_or_without(
    facescale, tiny_run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_reader, "available_detector", lambda: "drawn")
    monkeypatch.setattr(photo_reader, "build_detector", lambda name: name)
    monkeypatch.setattr(photo_reader, "find_face", lambda detector: middle)
    words = ["embed", str(tiny_run), "--device", "cpu", "--out", str(tmp_path / "e.npz")]
    code, out, _ = facescale(*words, str(photos), "--detect")
    assert code == 0 and "1 embeddings in" in out and "a.png: no face was found" in out
    assert "unaligned" not in out
    (tmp_path / "people" / "ann").mkdir(parents=True)
    for photo in ("a.png", "inner/b.jpg"):
        shutil.copy(photos / photo, tmp_path / "people" / "ann")
    code, out, _ = facescale(*words, str(tmp_path / "people"), "--resize")
    assert code == 0 and out.startswith("2 embeddings in")
    assert "they look unaligned; facescale prepare aligns photos, --detect finds the faces" in out
    code, out, _ = facescale(*words, str(photos / "a.png"))
    assert code == 0 and "1 embeddings in" in out and "unaligned" not in out
    found = np.load(tmp_path / "e.npz")
    np.testing.assert_allclose(
        found["embeddings"], load(tiny_run, "cpu").embed_files([photos / "a.png"]), atol=1e-5
    )


def test_files_are_embedded_as_their_pixels(tiny_run: Path, photos: Path) -> None:
    model = load(tiny_run, "cpu")
    pixels = np.asarray(Image.open(photos / "a.png"))
    expected = model.embed(np.stack([pixels] * 3))
    np.testing.assert_allclose(model.embed_files([photos / "a.png"] * 3, 2), expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"notes\.md' cannot be embedded: not a JPEG"):
        model.embed_files([photos / "notes.md"])
