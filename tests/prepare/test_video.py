"""Frames of a video at regular times; needs the extra "video"."""

import sys
from pathlib import Path

import numpy as np
import pytest

from facescale.data.readers.base import BadRecordError
from facescale.prepare import video
from facescale.prepare.video import Video, seconds_of
from tests.clips import RATE, STEP, draw_clip


@pytest.mark.parametrize(("text", "seconds"), [("0.5s", 0.5), ("200ms", 0.2), ("3 s", 3.0), ("1ms", 0.001)])
def test_times_are_read(text: str, seconds: float) -> None:
    assert seconds_of(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "1", "0s", "-1s", "0.5ms", "1e3s", "soon", "9999999s"])
def test_what_is_no_time_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=f"'{text}' is no time between frames; write one such as 0.5s"):
        seconds_of(text)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "mpeg4"), ("a.avi", "mpeg4"), ("a.mkv", "mpeg4")])
def test_frames_are_those_at_the_times(tmp_path: Path, name: str, codec: str) -> None:
    clip = Video(draw_clip(tmp_path / name, codec), every=0.5)
    assert clip.times_N.tolist() == pytest.approx([0.0, 0.52, 1.0, 1.52]), "the first frame at or after"
    for number in (0, 1, 2, 3, 1, 0, 3):
        pixels = clip[number]
        assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
        assert pixels.mean() == pytest.approx(clip.times_N[number] * RATE * STEP, abs=3)
    clip.close()


def test_no_frame_is_taken_twice(tmp_path: Path) -> None:
    clip = Video(draw_clip(tmp_path / "a.mp4"), every=0.01)
    assert len(clip) == 50 and np.diff(clip.times_N).min() > 0


def test_frames_are_upright(tmp_path: Path) -> None:
    turned = draw_clip(tmp_path / "a.mp4", rotation=90)
    pixels = Video(turned, every=5.0)[0].mean(2)
    assert pixels[40:].mean() > 240 and pixels[:24].mean() < 15, "the left half lies below"


def test_a_damaged_frame_is_named_and_the_others_are_read(tmp_path: Path) -> None:
    file = draw_clip(tmp_path / "a.mkv")
    data = bytearray(file.read_bytes())
    middle = slice(len(data) // 3, len(data) // 2)
    data[middle] = bytes(len(data[middle]))
    file.write_bytes(data)
    clip = Video(file, every=0.04)
    told = []
    for number in range(len(clip)):
        try:
            clip[number]
        except BadRecordError as error:
            told.append(str(error))
    assert len(told) < len(clip) and all("the video is damaged at " in text for text in told)


def test_a_video_that_is_cut_short_has_the_frames_before(tmp_path: Path) -> None:
    file = draw_clip(tmp_path / "a.mkv")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    clip = Video(file, every=0.2)
    assert 0 < len(clip) <= 10 and clip[0].mean() < 5


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no video " * 100,
        b"#EXTM3U\n#EXTINF:1,\n/etc/hosts\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\n",
    ],
)
def test_what_is_no_video_is_a_sentence(tmp_path: Path, content: bytes) -> None:
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.mp4' as a video \(.*\); get a complete copy of it, or convert"):
        Video(tmp_path / "a.mp4", every=1.0)


def test_a_video_is_a_file(tmp_path: Path) -> None:
    pytest.importorskip("av")
    with pytest.raises(ValueError, match=r"the video '.*gone\.mp4'"):
        Video(tmp_path / "gone.mp4", every=1.0)


def test_large_frames_are_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = draw_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(video, "PHOTO_PIXELS", 64 * 64 - 1)
    with pytest.raises(ValueError, match=r"64x64|damaged"):
        Video(file, every=1.0)[0]


def test_very_long_videos_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = draw_clip(tmp_path / "a.mp4")
    monkeypatch.setattr(video, "VIDEO_FRAMES", 20)
    with pytest.raises(ValueError, match="it has more than 20 frames"):
        Video(file, every=1.0)


def test_without_the_extra_its_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ValueError, match=r"is a video, which needs PyAV; .*'facescale\[video\]'"):
        Video(tmp_path / "a.mp4", every=1.0)
