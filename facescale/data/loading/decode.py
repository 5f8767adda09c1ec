"""Encoded image -> uint8 RGB pixels, strictly and within limits."""

import io

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from facescale.arrays import Pixels
from facescale.data.loading.exif import UPRIGHT, orientation, turned
from facescale.data.readers.base import BadRecordError

# A file of a few kilobytes can claim to hold gigapixels; a 64-megapixel photo needs 192 MB once decoded.
MAX_PIXELS = 64_000_000
_JPEG = b"\xff\xd8\xff"  # first bytes
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # Pillow opens nothing else

# What is unusual in a file that can be read all the same.
STRAY, SAMPLING = "stray bytes", "rare chroma sampling"
TURNED, TRANSPARENT = "turned upright by EXIF", "transparent, on black"
_HARMLESS = {  # what libjpeg says -> what it is
    "extraneous bytes before marker": STRAY,
    "not determine subsampling": SAMPLING,
}


def decode(data: bytes | Pixels, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image of any size to uint8 RGB (H, W, 3); pixels come back as they are.

    The exact (not the fast) DCT is used, so that pixels equal those of other libjpeg users. The picture is
    turned as its EXIF orientation says; transparent pixels are composed on black, as around aligned faces.

    Raises:
        BadRecordError: not a JPEG, PNG, BMP or WebP image, damaged, or larger than ``max_pixels``.
    """
    return decode_noting(data, max_pixels)[0]


def decode_noting(data: bytes | Pixels, max_pixels: int = MAX_PIXELS) -> tuple[Pixels, list[str]]:
    """`decode`, and in what the file is unusual: `STRAY`, `SAMPLING`, `TURNED`, `TRANSPARENT`.

    Raises:
        BadRecordError: as `decode`.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3:
            raise BadRecordError(f"pixels must be uint8 (H, W, 3), got {data.dtype} {data.shape}")
        return data, []
    turn = orientation(data)
    pixels, unusual = _decode_jpeg(data, max_pixels) if data[:3] == _JPEG else _decode_other(data, max_pixels)
    if turn == UPRIGHT:
        return pixels, unusual
    return turned(pixels, turn), [*unusual, TURNED]


def _decode_jpeg(data: bytes, max_pixels: int) -> tuple[Pixels, list[str]]:
    """By the fast decoder, which takes every warning for damage; what harms no pixel goes to Pillow."""
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if colours in ("CMYK", "YCCK"):
            return _decode_other(data, max_pixels)
        return simplejpeg.decode_jpeg(data, "RGB"), []
    except BadRecordError:
        raise
    except ValueError as error:
        unusual = [what for words, what in _HARMLESS.items() if words in str(error)]
        try:
            if unusual:
                return _decode_other(data, max_pixels)[0], unusual
        except BadRecordError:
            pass  # a truncated header, say, tells no sampling
        raise BadRecordError(f"damaged JPEG: {error}") from error


def decode_into(out: Pixels, data: bytes | Pixels, *, resize: bool = False) -> tuple[int, int]:
    """Decode an image into ``out``, uint8 (H, W, 3) and contiguous.

    Args:
        out: filled in place.
        data: encoded image, or pixels.
        resize: scale an image of another size to ``out`` (area average to shrink, bicubic to enlarge)
            instead of refusing it.

    Returns:
        Height and width of the image, before scaling.

    Raises:
        BadRecordError: the image cannot be decoded, or has another size and ``resize`` is off.
    """
    if isinstance(data, bytes) and data[:3] == _JPEG and orientation(data) == UPRIGHT:
        try:  # the common case: the right size, decoded in place
            # simplejpeg 1.9 loses 4.4 KB of memory when the image is larger than the buffer
            fits = not resize or simplejpeg.decode_jpeg_header(data)[:2] == out.shape[:2]
            if fits and simplejpeg.decode_jpeg(data, "RGB", buffer=out).shape == out.shape:
                return out.shape[:2]
        except ValueError:
            pass  # damaged, unusual, in CMYK, or larger than the buffer: `decode` finds out
    pixels = decode(data)
    size = pixels.shape[:2]
    if pixels.shape != out.shape:
        if not resize:
            raise BadRecordError(
                f"image is {pixels.shape[1]}x{pixels.shape[0]} pixels where {out.shape[1]}x{out.shape[0]} is"
                " wanted; align the photos (facescale prepare), or resize them (data.resize = true)"
            )
        pixels = resized(pixels, out.shape[1], out.shape[0])
    np.copyto(out, pixels)
    return size


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Scale uint8 (H, W, 3) pixels: area average when both sides shrink, else bicubic."""
    shrinks = width <= pixels.shape[1] and height <= pixels.shape[0]
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(pixels).resize((width, height), method))


def encode_jpeg(pixels: Pixels, quality: int = 95) -> bytes:
    """Encode uint8 RGB (H, W, 3) pixels as JPEG with full colour resolution."""
    encoded: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "444")
    return encoded


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadRecordError(f"image claims {width}x{height} pixels, more than the {max_pixels:,} allowed")


def _decode_other(data: bytes, max_pixels: int) -> tuple[Pixels, list[str]]:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(*image.size, max_pixels)
            if image.mode[0] in "IF":
                raise BadRecordError(f"image has more than 8 bits a channel (mode '{image.mode}')")
            if not image.has_transparency_data:
                return np.asarray(image.convert("RGB")), []
            layer = image.convert("RGBA")
            under = Image.new("RGBA", layer.size, (0, 0, 0, 255))
            return np.asarray(Image.alpha_composite(under, layer).convert("RGB")), [TRANSPARENT]
    except BadRecordError:
        raise
    except UnidentifiedImageError as error:
        raise BadRecordError("not a JPEG, PNG, BMP or WebP image") from error
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, struct.error, ...
        raise BadRecordError(f"damaged image: {error}") from error
