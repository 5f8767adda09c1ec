"""Decoding: exact pixels, strict on damage, within limits."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from facescale.data.loading.decode import (
    SAMPLING,
    STRAY,
    TRANSPARENT,
    TURNED,
    decode,
    decode_into,
    decode_noting,
    encode_jpeg,
    resized,
)
from facescale.data.loading.exif import orientation
from facescale.data.readers.base import BadRecordError


def pack(pixels: np.ndarray, kind: str, mode: str = "RGB", **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_give_back_the_pixels(make_picture, kind: str):
    pixels = make_picture(3)
    options = {"lossless": True} if kind == "WEBP" else {}
    assert np.array_equal(decode(pack(pixels, kind, **options)), pixels)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("size", [23, 112])
def test_jpeg_pixels_are_those_of_pillow(make_picture, subsampling: int, size: int):
    data = pack(make_picture(1, size), "JPEG", quality=95, subsampling=subsampling)
    reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode(data).astype(int) - reference).max() <= 1


@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "L"), ("PNG", "L"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "LA")]
)
def test_other_colour_modes_become_rgb(make_picture, kind: str, mode: str):
    data = pack(make_picture(2), kind, mode)
    reference = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(decode(data), reference)


def test_cmyk_jpegs_become_rgb(make_picture):
    data = pack(make_picture(2), "JPEG", "CMYK", quality=95)
    assert np.abs(decode(data).astype(int) - make_picture(2)).mean() < 4


def test_a_buffer_is_filled_in_place(make_picture):
    data = encode_jpeg(make_picture(5))
    out = np.zeros((2, 24, 24, 3), np.uint8)
    decode_into(out[1], data)
    assert np.array_equal(out[1], decode(data))
    assert not out[0].any()


def test_raw_pixels_are_copied(make_picture):
    out = np.zeros((24, 24, 3), np.uint8)
    decode_into(out, make_picture(5))
    assert np.array_equal(out, make_picture(5))


@pytest.mark.parametrize("size", [16, 40])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_an_image_of_another_size_is_refused_unless_resizing_is_allowed(make_picture, kind: str, size: int):
    data = pack(make_picture(4, size), kind)
    out = np.zeros((24, 24, 3), np.uint8)
    with pytest.raises(BadRecordError, match=rf"image is {size}x{size} pixels where 24x24 is wanted; align"):
        decode_into(out, data)
    decode_into(out, data, resize=True)
    assert np.abs(out.astype(int) - make_picture(4)).mean() < 12


def test_a_wide_image_of_as_many_pixels_is_not_taken_for_the_right_size(make_picture):
    pixels = make_picture(4, 32).reshape(16, 64, 3)
    with pytest.raises(BadRecordError, match="image is 64x16 pixels where 32x32 is wanted"):
        decode_into(np.zeros((32, 32, 3), np.uint8), encode_jpeg(pixels))


def test_shrinking_averages_areas():
    pixels = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    expected = pixels.reshape(2, 2, 2, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(resized(pixels, 2, 2) - expected).max() <= 0.5


@pytest.mark.parametrize("cut", [3, 40, 300, -2])
def test_a_truncated_jpeg_is_a_bad_record(make_picture, cut: int):
    data = encode_jpeg(make_picture(6))[:cut]
    for attempt in (decode, lambda data: decode_into(np.zeros((24, 24, 3), np.uint8), data)):
        with pytest.raises(BadRecordError, match="damaged JPEG"):
            attempt(data)


def test_a_truncated_png_is_a_bad_record(make_picture):
    with pytest.raises(BadRecordError, match="damaged image"):
        decode(pack(make_picture(6), "PNG")[:-60])


@pytest.mark.parametrize(
    "data", [b"", b"not an image", b"GIF89a" + bytes(50), b"%PDF-1.4", b"II*\0" + bytes(100)]
)
def test_what_is_no_image_of_a_known_format_is_a_bad_record(data: bytes):
    with pytest.raises(BadRecordError, match="not a JPEG, PNG, BMP or WebP image"):
        decode(data)


def test_more_than_eight_bits_are_refused():
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(file, "PNG")
    with pytest.raises(BadRecordError, match=r"more than 8 bits a channel \(mode 'I;16'\)"):
        decode(file.getvalue())


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_pixels_of_another_kind_are_refused(pixels: np.ndarray):
    with pytest.raises(BadRecordError, match=r"pixels must be uint8 \(H, W, 3\)"):
        decode(pixels)


def huge_png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def huge_jpeg(make_picture) -> bytes:
    data = bytearray(encode_jpeg(make_picture(0)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    return bytes(data)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(make_picture, kind: str):
    data = huge_png() if kind == "png" else huge_jpeg(make_picture)
    sentence = (
        "claims 60000x60000 pixels, more than the 64,000,000 allowed|exceeds limit of"  # ours, or Pillow's
    )
    for attempt in (decode, lambda data: decode_into(np.zeros((24, 24, 3), np.uint8), data, resize=True)):
        with pytest.raises(BadRecordError, match=sentence):
            attempt(data)


def test_encoding_keeps_the_picture(make_picture):
    assert np.abs(decode(encode_jpeg(make_picture(7))).astype(int) - make_picture(7)).max() < 12


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_scaling_images_keeps_no_memory():
    noise = np.random.default_rng(0).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    data, out = encode_jpeg(noise), np.empty((56, 56, 3), np.uint8)

    def used() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    decode_into(out, data, resize=True)
    before = used()
    for _ in range(5000):
        decode_into(out, data, resize=True)
    assert used() - before < 8 << 20  # 22 MB while the decoder kept 4.4 KB of each


def photo(turn: int, kind: str) -> bytes:
    """A picture that is stored turned, with the note that says so."""
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = turn
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :8], pixels[:8, 16:], pixels[8:, :8] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    file = io.BytesIO()
    options = {"JPEG": {"subsampling": 0}, "WEBP": {"lossless": True}, "PNG": {}}[kind]
    Image.fromarray(pixels).save(file, kind, exif=exif, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_a_picture_is_turned_as_every_viewer_turns_it(turn: int, kind: str):
    data = photo(turn, kind)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert("RGB")))
    pixels, unusual = decode_noting(data)
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).max() <= 1
    assert unusual == ([] if turn == 1 else [TURNED])
    assert orientation(data) == turn


def test_a_square_picture_is_turned_in_place_too(make_picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = pack(make_picture(3), "JPEG", exif=exif, quality=95, subsampling=0)
    out = np.zeros((24, 24, 3), np.uint8)
    assert decode_into(out, data) == (24, 24)
    assert np.abs(out.astype(int) - np.rot90(make_picture(3), -1)).mean() < 3


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"II*\0",
        b"MM\0*\0\0\0\x08\xff\xff",
        b"II*\0\xff\xff\xff\xff",
        b"xxxx" * 4,
        b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x09\0",
    ],
)
def test_a_broken_note_leaves_the_picture_as_it_is(make_picture, block: bytes):
    jpeg = encode_jpeg(make_picture(3))
    segment = b"Exif\0\0" + block
    data = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + jpeg[2:]
    pixels, unusual = decode_noting(data)
    assert np.array_equal(pixels, decode(jpeg))
    assert unusual == []


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_are_composed_on_black(make_picture, mode: str):
    layer = Image.fromarray(make_picture(3)).convert("RGBA")
    alpha = np.full((24, 24), 255, np.uint8)
    alpha[:8], alpha[8:16] = 0, 128
    layer.putalpha(Image.fromarray(alpha))
    file = io.BytesIO()
    if mode == "PA":  # a palette with one transparent colour
        palette = Image.fromarray((np.arange(576) // 200).astype(np.uint8).reshape(24, 24), "P")
        palette.putpalette([255, 0, 255, 0, 255, 0, 0, 0, 255])
        palette.save(file, "PNG", transparency=0)
        pixels, unusual = decode_noting(file.getvalue())
        assert (pixels[:8] == 0).all() and pixels[-1].max() == 255
    else:
        layer.convert(mode).save(file, "PNG")
        pixels, unusual = decode_noting(file.getvalue())
        opaque = np.asarray(layer.convert("RGB") if mode == "RGBA" else layer.convert("L").convert("RGB"))
        assert (pixels[:8] == 0).all()
        assert np.abs(pixels[8:16].astype(int) - opaque[8:16] * (128 / 255)).max() <= 1
        assert np.array_equal(pixels[16:], opaque[16:])
    assert unusual == [TRANSPARENT]


@pytest.mark.parametrize("place", ["end", "table"])
def test_stray_bytes_between_segments_harm_no_pixel(make_picture, place: str):
    jpeg = encode_jpeg(make_picture(6))
    at = len(jpeg) - 2 if place == "end" else jpeg.index(b"\xff\xc4")
    data = jpeg[:at] + b"\x11\x22\x33" * 5 + jpeg[at:]
    pixels, unusual = decode_noting(data)
    assert np.abs(pixels.astype(int) - decode(jpeg)).max() <= 1
    assert unusual == [STRAY]
    out = np.zeros((24, 24, 3), np.uint8)
    decode_into(out, data)
    assert np.array_equal(out, pixels)


def test_a_picture_that_is_cut_in_the_middle_stays_bad_though_it_has_an_end(make_picture):
    jpeg = encode_jpeg(make_picture(6, 64))
    scan = jpeg.index(b"\xff\xda")
    with pytest.raises(BadRecordError, match="damaged JPEG"):
        decode(jpeg[: (scan + len(jpeg)) // 2] + b"\xff\xd9")


def test_a_rare_chroma_sampling_is_read():
    """16x16 grey pixels: 2x2 blocks of luma, 2x1 of one colour, 1x2 of the other, which has no name."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), (128, 128, 128)).save(file, "JPEG", subsampling=0)
    jpeg = bytearray(file.getvalue())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 11], jpeg[frame + 14], jpeg[frame + 17] = 0x22, 0x21, 0x12
    scan = jpeg.index(b"\xff\xda")
    scan += 2 + int.from_bytes(jpeg[scan + 2 : scan + 4], "big")
    bits = "001010" * 4 + "0000" * 4  # no difference, end of block: for luma, for colour
    blocks = int(bits, 2).to_bytes(len(bits) // 8, "big")
    pixels, unusual = decode_noting(bytes(jpeg[:scan]) + blocks + b"\xff\xd9")
    assert (pixels == 128).all()
    assert unusual == [SAMPLING]
