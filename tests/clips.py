"""Small videos for tests: grey frames that become brighter, so that each tells its number."""

from pathlib import Path

import numpy as np
import pytest

FRAMES, RATE, STEP = 50, 25, 5


def draw_clip(path: Path, codec: str = "mpeg4", rotation: int = 0, side: int = 64) -> Path:
    """Two seconds; frame i has the grey value i * STEP, and a white left half where it is to be rotated."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE)
        stream.bit_rate = 4_000_000  # so that neighbours differ more than their coding errors
        stream.width, stream.height, stream.pix_fmt = side, side, "yuv420p"
        if rotation and not hasattr(stream, "set_display_rotation"):
            pytest.skip("this PyAV cannot write turned videos")
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(FRAMES):
            pixels = np.full((side, side, 3), number * STEP, np.uint8)
            pixels[:, : side // 2] = 255 if rotation else number * STEP
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path
