"""A picture with images of some identities."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from facescale.arrays import Pixels
from facescale.data.loading.decode import decode, resized
from facescale.data.readers.base import BadRecordError, Reader, identity_names
from facescale.files import replacing


def contact_sheet(
    reader: Reader, path: str | Path, *, identities: int = 10, images: int = 8, side: int = 112
) -> None:
    """Write a PNG with one row of images for each of some identities, spread over the set."""
    strip = 14  # pixels for the name above each row
    chosen = np.unique(np.linspace(0, reader.num_ids - 1, min(identities, reader.num_ids)).astype(np.int64))
    names = identity_names(reader)
    sheet = Image.new("RGB", (images * side, len(chosen) * (side + strip)), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for row, identity in enumerate(chosen.tolist()):
        top = row * (side + strip)
        members = np.flatnonzero(reader.ids == identity)
        label = f"{names[identity]}  ({len(members)} images)".encode("ascii", "replace").decode()
        draw.text((2, top + 1), label, fill=(230, 230, 230))
        for column, index in enumerate(members[:images].tolist()):
            sheet.paste(Image.fromarray(_tile(reader, index, side)), (column * side, top + strip))
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")


def _tile(reader: Reader, index: int, side: int) -> Pixels:
    """An image inside a square of ``side`` pixels; red where it cannot be read."""
    tile = np.zeros((side, side, 3), np.uint8)
    try:
        pixels = decode(reader[index][0])
    except BadRecordError:
        tile[:] = (160, 0, 0)
        return tile
    height, width, _ = pixels.shape
    scale = side / max(height, width)
    small = resized(pixels, max(1, round(width * scale)), max(1, round(height * scale)))
    tile[: small.shape[0], : small.shape[1]] = small
    return tile
