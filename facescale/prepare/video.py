"""Frames of a video at regular times, decoded one after the other: memory does not grow with its length.

PyAV (extra "video") is used because it tells the time of every frame without decoding it, seeks to it, and
reports damage as an error. OpenCV ends a damaged video as if it were complete, and ffmpeg as a separate
program passes no times on.
"""

import re
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from facescale.arrays import IntArray, Pixels
from facescale.data.readers.base import BadRecordError
from facescale.guard.limits import PHOTO_PIXELS, VIDEO_FRAMES
from facescale.guard.reading import check_file, reason

SUFFIXES = frozenset(
    (".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg")
)
# Containers that hold the frames themselves; a playlist could name other files and hosts.
_FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg"
_OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
_TIME = re.compile(r"(\d{1,6}(?:\.\d{1,6})?) ?(ms|s)")
_LEAST = 1e-3  # seconds between frames


def seconds_of(text: str) -> float:
    """Read a time such as "0.5s" or "200ms".

    Raises:
        ValueError: it is none, or below a millisecond.
    """
    found = _TIME.fullmatch(text.strip())
    seconds = float(found[1]) * (_LEAST if found[2] == "ms" else 1.0) if found else 0.0
    if seconds < _LEAST:
        raise ValueError(f"'{text}' is no time between frames; write one such as 0.5s or 200ms, at least 1ms")
    return seconds


class Video:
    """The first frame at or after 0, ``every``, 2 ``every``, ... seconds; each frame once.

    Frames are cheap in their order; going back seeks and decodes again.

    Args:
        path: the file.
        every: seconds.

    Attributes:
        times_N: float64 (N,), seconds since the first frame.

    Raises:
        ValueError: PyAV is not installed; the file is no video, or damaged from its beginning.
    """

    def __init__(self, path: str | Path, every: float) -> None:
        self._av, self._path = _import_av(path), Path(path)
        check_file(self._path, "the video")
        self._container: Any = None
        self._frames: Iterator[tuple[int, Any]] = iter(())  # time stamp and frame
        self._next = 0  # the number of the first frame that was not passed yet
        try:
            stamps_F, self._unit = self._stamps()
        except self._av.FFmpegError as error:
            raise self._unreadable(reason(error)) from None
        if not len(stamps_F):
            raise self._unreadable("it holds no frame")
        second_F = (stamps_F - stamps_F[0]) * self._unit
        wanted = np.arange(0.0, second_F[-1] + _LEAST / 2, every)
        chosen = np.unique(np.searchsorted(second_F, wanted - _LEAST / 2).clip(max=len(stamps_F) - 1))
        self._stamps_N: IntArray = stamps_F[chosen]
        self.times_N = second_F[chosen]

    def __len__(self) -> int:
        return len(self._stamps_N)

    def __getitem__(self, index: int) -> Pixels:
        """Frame ``index``, upright uint8 RGB (H, W, 3).

        Raises:
            BadRecordError: it cannot be decoded.
        """
        if self._container is None or index < self._next:
            self._seek(index)
        self._next = index + 1
        stamp = int(self._stamps_N[index])
        found, frame = next((one for one in self._frames if one[0] >= stamp), (-1, None))
        if frame is None or found != stamp:
            self.close()  # a frame after it may have left the decoder: seek for the next one
            raise BadRecordError(f"the video is damaged at {self.times_N[index]:.3f} s")
        if frame.width * frame.height > PHOTO_PIXELS:
            raise BadRecordError(
                f"its frames are {frame.width}x{frame.height}, more than {PHOTO_PIXELS:,} pixels"
            )
        pixels: Pixels = frame.to_ndarray(format="rgb24")
        return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()
        self._container = None

    def _open(self) -> tuple[Any, Any]:
        """The container, and its stream of frames."""
        container = self._av.open(str(self._path.absolute()), options=_OPTIONS)
        stream = container.streams.best("video")
        if stream is None:
            container.close()
            raise self._unreadable("it holds no frame")
        stream.codec_context.options = {"max_pixels": str(PHOTO_PIXELS)}
        return container, stream

    def _stamps(self) -> tuple[IntArray, float]:
        """Time stamps of all frames, ascending, and their unit in seconds; nothing is decoded."""
        container, stream = self._open()
        stamps = array("q")
        with container:
            try:
                for packet in container.demux(stream):
                    stamp = packet.dts if packet.pts is None else packet.pts
                    if stamp is not None:
                        stamps.append(stamp)
                    if len(stamps) > VIDEO_FRAMES:
                        raise self._unreadable(f"it has more than {VIDEO_FRAMES:,} frames")
            except self._av.FFmpegError:  # cut short: what is there can be used
                if not stamps:
                    raise
            return np.unique(np.array(stamps, np.int64)), float(stream.time_base)

    def _seek(self, index: int) -> None:
        self.close()
        self._container, stream = self._open()
        if index:
            self._container.seek(int(self._stamps_N[index]), stream=stream)  # to the key frame before it
        self._frames = self._decoded(self._container, stream)

    def _decoded(self, container: Any, stream: Any) -> Iterator[tuple[int, Any]]:
        """Time stamp and frame, in the order of time; what cannot be decoded is left out."""
        packets = iter(container.demux(stream))
        while True:
            try:
                frames = next(packets).decode()
            except StopIteration:
                return
            except self._av.FFmpegError:
                continue
            for frame in frames:
                stamp = frame.dts if frame.pts is None else frame.pts
                if stamp is not None and not frame.is_corrupt:
                    yield stamp, frame

    def _unreadable(self, why: str) -> ValueError:
        return ValueError(
            f"cannot read '{self._path}' as a video ({why}); get a complete copy of it, or convert it to MP4"
        )


def _import_av(path: str | Path) -> Any:
    try:
        import av
    except ImportError:
        raise ValueError(
            f"'{path}' is a video, which needs PyAV; install it with: pip install 'facescale[video]'"
        ) from None
    av.logging.set_level(None)  # damage is told in our sentence
    return av
