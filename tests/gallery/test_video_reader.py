"""A video as a data source, and the command that embeds its faces; needs the extra "video"."""

from pathlib import Path

import numpy as np
import pytest

from facescale.data.readers.base import BadRecordError
from facescale.gallery import photo_reader
from facescale.gallery.photo_reader import open_faces
from facescale.gallery.photos import FoundFace
from facescale.gallery.video_reader import FacesOfVideo, is_video
from tests.clips import STEP, draw_clip


def bright(photo_HW3: np.ndarray, size: int) -> FoundFace:
    """A face in every frame but the first."""
    if photo_HW3.mean() < STEP:
        raise ValueError("no face was found")
    return FoundFace(photo_HW3[:size, :size])


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return draw_clip(tmp_path / "clip.mp4")


def test_faces_are_named_by_their_time(clip: Path) -> None:
    reader = FacesOfVideo(clip, 0.5, bright, 56)
    assert [reader.key(index) for index in range(len(reader))] == [
        f"{clip}#t={time}" for time in ("0.000", "0.520", "1.000", "1.520")
    ]
    assert reader.ids.tolist() == [-1] * 4 and reader[1][0].shape == (56, 56, 3)
    with pytest.raises(BadRecordError, match="no face was found"):
        reader[0]


def test_threads_may_ask_in_any_order_and_no_frame_is_decoded_twice(clip: Path) -> None:
    asked = []

    def find(photo_HW3: np.ndarray, size: int) -> FoundFace:
        asked.append(photo_HW3.mean())
        return FoundFace(photo_HW3[:size, :size])

    reader = FacesOfVideo(clip, 0.04, find, 56)
    order = [1, 0, 4, 2, 3, *range(6, 50), 5]
    seen = {index: reader[index][0].mean() for index in order}
    assert len(asked) == len(reader) == 50
    assert all(seen[index] == pytest.approx(index * STEP, abs=3) for index in order)


def test_a_video_is_told_by_its_suffix(clip: Path, tmp_path: Path) -> None:
    assert is_video(clip) and not is_video(tmp_path / "gone.mp4") and not is_video(tmp_path)
    with pytest.raises(ValueError, match=r"a time between frames \('1s'\) is for a video, and '.*' is none"):
        open_faces(56, str(tmp_path), False, "1s")


def test_the_command_embeds_the_faces_of_a_video(
    facescale, tiny_run: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo_reader, "available_detector", lambda: "none")
    monkeypatch.setattr(photo_reader, "build_detector", lambda name: None)
    monkeypatch.setattr(photo_reader, "find_face", lambda detector: bright)
    out = tmp_path / "e.npz"
    code, printed, err = facescale("embed", str(tiny_run), str(clip), "--every", "500ms", "--out", str(out))
    assert (code, err) == (0, "") and "3 embeddings in" in printed
    assert f"skipped {clip}#t=0.000: no face was found" in printed
    with np.load(out) as saved:
        assert [key.rpartition("#")[2] for key in saved["keys"]] == ["t=0.520", "t=1.000", "t=1.520"]
    code, _, err = facescale("embed", str(tiny_run), str(clip), "--every", "soon", "--out", str(out))
    assert code == 2 and "'soon' is no time between frames" in err
