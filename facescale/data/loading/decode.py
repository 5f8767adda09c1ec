"""Encoded image -> uint8 RGB pixels, strictly and within limits."""

import io

import numpy as np
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError

from facescale.arrays import Pixels
from facescale.data.loading.exif import UPRIGHT, orientation, turned
from facescale.data.readers.base import BadRecordError
from facescale.guard.limits import IMAGE_PIXELS, JPEG_SCANNED_PIXELS, JPEG_SCANS
from facescale.guard.reading import reason

_SCAN_BYTES = 10  # the least that the header of a scan takes
_STRIP = 512  # rows composed at a time, so that transparent pixels cost no second copy of the picture
_JPEG = b"\xff\xd8\xff"  # first bytes
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")  # Pillow opens nothing else

# What is unusual in a file that can be read all the same.
STRAY, SAMPLING = "stray bytes", "rare chroma sampling"
TURNED, TRANSPARENT = "turned upright by EXIF", "transparent, on black"
_HARMLESS = {  # what libjpeg says -> what it is
    "extraneous bytes before marker": STRAY,
    "not determine subsampling": SAMPLING,
}


def decode(data: bytes | Pixels, max_pixels: int = IMAGE_PIXELS) -> Pixels:
    """Decode an image of any size to uint8 RGB (H, W, 3); pixels come back as they are.

    The exact (not the fast) DCT is used, so that pixels equal those of other libjpeg users. The picture is
    turned as its EXIF orientation says; transparent pixels are composed on black, as around aligned faces.

    Raises:
        BadRecordError: not a JPEG, PNG, BMP or WebP image, damaged, or larger than ``max_pixels``.
    """
    return decode_noting(data, max_pixels)[0]


def decode_noting(data: bytes | Pixels, max_pixels: int = IMAGE_PIXELS) -> tuple[Pixels, list[str]]:
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
        _check_scans(data, width * height)
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
            fits = fits and few_scans(data, out.shape[0] * out.shape[1])
            if fits and simplejpeg.decode_jpeg(data, "RGB", buffer=out).shape == out.shape:
                return out.shape[:2]
        except ValueError:
            pass  # damaged, unusual, in CMYK, or larger than the buffer: `decode` finds out
    if not resize and isinstance(data, bytes) and (stated := _stated_size(data)):
        _check_wanted(*stated, out)  # before 64 megapixels are decoded for nothing
    pixels = decode(data)
    size = pixels.shape[:2]
    if pixels.shape != out.shape:
        if not resize:
            _check_wanted(size[0], size[1], out)
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


def _check_wanted(height: int, width: int, out: Pixels) -> None:
    if (height, width) != out.shape[:2]:
        raise BadRecordError(
            f"image is {width}x{height} pixels where {out.shape[1]}x{out.shape[0]} is wanted; align the"
            " photos (facescale prepare), or resize them (data.resize = true in a config, embed --resize)"
        )


def _stated_size(data: bytes) -> tuple[int, int] | None:
    """Height and width of the upright image as its header states them; None where it cannot be read."""
    try:
        if data[:3] == _JPEG:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
        else:
            with _opened(data) as image:
                width, height = image.size
    except ValueError:
        return None
    return (width, height) if orientation(data) >= 5 else (height, width)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise BadRecordError(f"image claims {width}x{height} pixels, more than the {max_pixels:,} allowed")


def few_scans(data: bytes, num_pixels: int) -> bool:
    """Whether a JPEG has no more scans than a file of its size may have; each visits every pixel."""
    most = len(data) // _SCAN_BYTES
    if most <= JPEG_SCANS and most * num_pixels <= JPEG_SCANNED_PIXELS:
        return True  # without a look at every byte, which takes a twelfth of decoding
    scans = data.count(b"\xff\xda")  # compressed data has no such bytes
    return scans <= JPEG_SCANS and scans * num_pixels <= JPEG_SCANNED_PIXELS


def _check_scans(data: bytes, num_pixels: int) -> None:
    if not few_scans(data, num_pixels):
        scans = data.count(b"\xff\xda")
        raise BadRecordError(
            f"JPEG has {scans:,} scans of {num_pixels:,} pixels, more than is decoded; encode the image again"
        )


def _opened(data: bytes) -> ImageFile.ImageFile:
    """The image with its header read by Pillow."""
    try:
        return Image.open(io.BytesIO(data), formats=_FORMATS)
    except UnidentifiedImageError as error:
        raise BadRecordError("not a JPEG, PNG, BMP or WebP image") from error
    except Exception as error:  # on damaged files Pillow raises OSError, SyntaxError, struct.error, ...
        raise BadRecordError(f"damaged image: {reason(error)}") from error


def _decode_other(data: bytes, max_pixels: int) -> tuple[Pixels, list[str]]:
    with _opened(data) as image:
        try:
            _check_size(*image.size, max_pixels)
            if image.format == "JPEG":
                _check_scans(data, image.width * image.height)
            if image.mode[0] in "IF":
                raise BadRecordError(f"image has more than 8 bits a channel (mode '{image.mode}')")
            if not image.has_transparency_data:
                return np.asarray(image.convert("RGB")), []
            return _on_black(image), [TRANSPARENT]
        except BadRecordError:
            raise
        except Exception as error:
            raise BadRecordError(f"damaged image: {reason(error)}") from error


def _on_black(image: ImageFile.ImageFile) -> Pixels:
    """The RGB pixels of a picture with transparent ones, composed on black a strip at a time."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, _STRIP):
        bottom = min(top + _STRIP, height)
        layer = image.crop((0, top, width, bottom)).convert("RGBA")
        under = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        pixels[top:bottom] = np.asarray(Image.alpha_composite(under, layer).convert("RGB"))
    return pixels
