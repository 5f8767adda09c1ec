"""Write one crop as an image file."""

import io
from pathlib import Path

from PIL import Image

from facescale.arrays import Pixels
from facescale.data.loading.decode import encode_jpeg
from facescale.files import replacing

_SUFFIXES = (".png", ".jpg", ".jpeg")


def check_crop_name(path: Path) -> None:
    """Make sure that a crop can be written to ``path``.

    Raises:
        ValueError: another suffix than .png, .jpg or .jpeg.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(f"cannot write a crop to '{path}'; its name must end in .png or .jpg")


def write_crop(path: Path, crop_HW3: Pixels) -> None:
    """Write uint8 RGB (H, W, 3) as PNG, or as JPEG as `prepare` packs it, by the suffix of ``path``.

    Raises:
        ValueError: another suffix.
    """
    check_crop_name(path)
    if path.suffix.lower() == ".png":
        out = io.BytesIO()
        Image.fromarray(crop_HW3).save(out, "PNG")
        encoded = out.getvalue()
    else:
        encoded = encode_jpeg(crop_HW3)
    with replacing(path) as temporary:
        temporary.write_bytes(encoded)
