"""Open a photo of any common kind as upright RGB pixels; its content decides what it is, not its suffix."""

import io
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from facescale.arrays import Pixels
from facescale.data.loading.decode import TRANSPARENT, TURNED, few_scans
from facescale.data.readers.base import BadRecordError
from facescale.guard.limits import PHOTO_PIXELS
from facescale.guard.reading import reason

# Nothing else is opened.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM", "AVIF", "HEIF")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")

# Why a photo cannot be opened.
NOT_AN_IMAGE, DAMAGED, TOO_LARGE = "not an image", "damaged image", "too many pixels"
NEEDS_HEIF = "HEIC photo, needs facescale[heif]"
# What was done to a photo while it was opened.
DEEP, CMYK = "16 bits to 8", "CMYK to RGB"  # and the decoder's TURNED and TRANSPARENT


class PhotoError(BadRecordError):
    """A file cannot be opened as a photo.

    Attributes:
        reason: `NOT_AN_IMAGE`, `DAMAGED`, `TOO_LARGE` or `NEEDS_HEIF`.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Photo:
    """A decoded photo.

    Attributes:
        pixels_HW3: uint8 RGB (H, W, 3), upright.
        notes: what was done to it: `TURNED`, `TRANSPARENT`, `DEEP`, `CMYK`.
    """

    pixels_HW3: Pixels
    notes: tuple[str, ...]


def open_photo(data: bytes, max_pixels: int = PHOTO_PIXELS) -> Photo:
    """Decode a photo to upright uint8 RGB.

    The EXIF orientation is applied, CMYK and grey are converted, 16-bit channels are scaled to 8 bits,
    transparent pixels are composed on black, and of an animation the first picture is taken.

    Raises:
        PhotoError: the bytes are not an image, are damaged or cut short, have more than ``max_pixels``, or
            are HEIC while pillow-heif is not installed.
    """
    has_heif = _register_heif()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images and of odd metadata
            with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
                if image.width * image.height > max_pixels:
                    size = f"{image.width}x{image.height}"
                    raise PhotoError(TOO_LARGE, f"{size}, more than the {max_pixels:,} pixels allowed")
                if image.format in ("JPEG", "MPO") and not few_scans(data, image.width * image.height):
                    raise PhotoError(TOO_LARGE, "it has more scans than are decoded; encode it again")
                return _to_rgb(image)
    except PhotoError:
        raise
    except Image.DecompressionBombError as error:
        raise PhotoError(TOO_LARGE, reason(error)) from error
    except UnidentifiedImageError as error:
        if not has_heif and data[4:8] == b"ftyp" and data[8:12] in _HEIF_BRANDS:
            raise PhotoError(NEEDS_HEIF, "") from error
        raise PhotoError(NOT_AN_IMAGE, "") from error
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, struct.error, ...
        raise PhotoError(DAMAGED, reason(error)) from error


def is_photo(path: Path) -> bool:
    """Whether the first bytes of a file are those of a picture that `open_photo` may open."""
    if not path.is_file():  # opening a pipe would wait for its writer
        return False
    _register_heif()
    try:
        with Image.open(path, formats=_known_formats()):
            return True
    except Exception:  # whatever Pillow makes of bytes that are something else
        return False


def _to_rgb(image: Image.Image) -> Photo:
    notes = []
    image.load()
    if image.mode.startswith("I;16") or image.mode == "I":
        image, notes = _eight_bits(image), [DEEP]
    elif image.mode == "F":
        raise PhotoError(DAMAGED, "floating-point pixels, whose range is unknown")
    upright = ImageOps.exif_transpose(image)
    if image.getexif().get(0x0112, 1) in range(2, 9):
        notes.append(TURNED)
    if upright.mode == "CMYK":
        notes.append(CMYK)
    if upright.has_transparency_data:
        layer = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", layer.size, (0, 0, 0, 255)), layer)
        notes.append(TRANSPARENT)
    return Photo(np.asarray(upright.convert("RGB")), tuple(notes))


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits as one of 8."""
    values = np.asarray(image).astype(np.float64)
    grey = Image.fromarray(np.rint(values.clip(0, 65_535) / 257).astype(np.uint8))
    grey.info = image.info
    return grey


@cache
def _register_heif() -> bool:
    """Let Pillow open HEIC if pillow-heif is installed; whether it is."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def _known_formats() -> list[str]:
    """Those of `_FORMATS` that this Pillow has."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]
