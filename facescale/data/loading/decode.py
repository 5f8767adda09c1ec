"""Encoded image -> uint8 RGB pixels, strictly and within limits."""

import io

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from facescale.arrays import Pixels
from facescale.data.readers.base import BadRecordError

# A file of a few kilobytes can claim to hold gigapixels; a 64-megapixel photo needs 192 MB once decoded.
MAX_PIXELS = 64_000_000
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # Pillow opens nothing else


def decode(data: bytes | Pixels, max_pixels: int = MAX_PIXELS) -> Pixels:
    """Decode an image of any size to uint8 RGB (H, W, 3); pixels come back as they are.

    The exact (not the fast) DCT is used, so that pixels equal those of other libjpeg users. EXIF rotation is
    not applied. Transparency is dropped.

    Raises:
        BadRecordError: not a JPEG, PNG, BMP or WebP image, damaged, or larger than ``max_pixels``.
    """
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 3 or data.shape[2] != 3:
            raise BadRecordError(f"pixels must be uint8 (H, W, 3), got {data.dtype} {data.shape}")
        return data
    if data[:3] != b"\xff\xd8\xff":
        return _decode_other(data, max_pixels)
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        _check_size(width, height, max_pixels)
        if colours in ("CMYK", "YCCK"):
            return _decode_other(data, max_pixels)
        pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB")
    except BadRecordError:
        raise
    except ValueError as error:
        raise BadRecordError(f"damaged JPEG: {error}") from error
    return pixels


def decode_into(out: Pixels, data: bytes | Pixels, *, resize: bool = False) -> None:
    """Decode an image into ``out``, uint8 (H, W, 3) and contiguous.

    Args:
        out: filled in place.
        data: encoded image, or pixels.
        resize: scale an image of another size to ``out`` (area average to shrink, bicubic to enlarge)
            instead of refusing it.

    Raises:
        BadRecordError: the image cannot be decoded, or has another size and ``resize`` is off.
    """
    if isinstance(data, bytes) and data[:3] == b"\xff\xd8\xff":
        try:  # the common case: the right size, decoded in place
            # simplejpeg 1.9 loses 4.4 KB of memory when the image is larger than the buffer
            fits = not resize or simplejpeg.decode_jpeg_header(data)[:2] == out.shape[:2]
            if fits and simplejpeg.decode_jpeg(data, "RGB", buffer=out).shape == out.shape:
                return
        except ValueError:
            pass  # damaged, in CMYK, or larger than the buffer: `decode` finds out
    pixels = decode(data)
    if pixels.shape != out.shape:
        if not resize:
            raise BadRecordError(
                f"image is {pixels.shape[1]}x{pixels.shape[0]} pixels where {out.shape[1]}x{out.shape[0]} is"
                " wanted; align the photos first, or allow resizing"
            )
        pixels = resized(pixels, out.shape[1], out.shape[0])
    np.copyto(out, pixels)


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


def _decode_other(data: bytes, max_pixels: int) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            _check_size(*image.size, max_pixels)
            if image.mode[0] in "IF":
                raise BadRecordError(f"image has more than 8 bits a channel (mode '{image.mode}')")
            return np.asarray(image.convert("RGB"))
    except BadRecordError:
        raise
    except UnidentifiedImageError as error:
        raise BadRecordError("not a JPEG, PNG, BMP or WebP image") from error
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, struct.error, ...
        raise BadRecordError(f"damaged image: {error}") from error
