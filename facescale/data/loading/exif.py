"""How a picture has to be turned to stand upright, as cameras note it (EXIF 2.3, tag 0x0112)."""

import struct

import numpy as np

from facescale.arrays import Pixels

UPRIGHT = 1
_JPEG_WITHIN = 1 << 17  # bytes; a JPEG's notes come before its pixels
_LONGEST = 1 << 16
_TAG = 0x0112


def orientation(data: bytes) -> int:
    """1 (upright) to 8, from the EXIF block of a JPEG, PNG or WebP file; 1 where it has none."""
    if data[:2] == b"\xff\xd8":
        found, skip = data.find(b"Exif\0\0", 0, _JPEG_WITHIN), 6
    elif data[:4] == b"RIFF":
        found, skip = data.find(b"EXIF"), 8  # the chunk's length lies between
    else:
        found, skip = data.find(b"eXIf"), 4
    if found < 0:
        return UPRIGHT
    block = data[found + skip : found + skip + _LONGEST].removeprefix(b"Exif\0\0")
    try:
        value = _from_tiff(block)
    except struct.error:
        return UPRIGHT
    return value if 1 <= value <= 8 else UPRIGHT


def _from_tiff(block: bytes) -> int:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return UPRIGHT
    (at,) = struct.unpack_from(f"{order}I", block, 4)
    (count,) = struct.unpack_from(f"{order}H", block, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, _, _, value = struct.unpack_from(f"{order}HHIH", block, entry)
        if tag == _TAG:
            return int(value)
    return UPRIGHT


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """Pixels (H, W, 3) as they are seen: mirrored and turned from how they are stored."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
