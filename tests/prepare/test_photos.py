import io

import numpy as np
import pytest
from PIL import Image

from facescale.data.loading.decode import TRANSPARENT, TURNED
from facescale.prepare import photos
from facescale.prepare.photos import (
    CMYK,
    DAMAGED,
    DEEP,
    NEEDS_HEIF,
    NOT_AN_IMAGE,
    TOO_LARGE,
    PhotoError,
    open_photo,
)


def encoded(image: Image.Image, form: str, **options) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF", "PPM"])
def test_common_formats_are_opened_as_rgb(make_picture, form: str) -> None:
    pixels = make_picture(1, 40)
    photo = open_photo(encoded(Image.fromarray(pixels), form))
    assert photo.pixels_HW3.shape == (40, 40, 3) and photo.pixels_HW3.dtype == np.uint8
    assert np.abs(photo.pixels_HW3.astype(int) - pixels).mean() < 8
    assert photo.notes == ()


@pytest.mark.parametrize("turn", range(1, 9))
def test_a_photo_stands_upright_whatever_way_the_phone_was_held(make_picture, turn: int) -> None:
    pixels = make_picture(2, 32)
    ways = {
        1: lambda p: p,
        2: lambda p: p[:, ::-1],
        3: lambda p: p[::-1, ::-1],
        4: lambda p: p[::-1],
        5: lambda p: p.transpose(1, 0, 2),
        6: lambda p: np.rot90(p),
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
        8: lambda p: np.rot90(p, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = turn
    stored = Image.fromarray(np.ascontiguousarray(ways[turn](pixels)))
    photo = open_photo(encoded(stored, "PNG", exif=exif))
    assert np.array_equal(photo.pixels_HW3, pixels)
    assert photo.notes == (() if turn == 1 else (TURNED,))


def test_grey_cmyk_16_bit_and_transparent_photos_are_converted_and_said() -> None:
    grey = np.full((8, 8), 100, np.uint8)
    assert open_photo(encoded(Image.fromarray(grey), "PNG")).pixels_HW3.tolist()[0][0] == [100, 100, 100]
    cmyk = open_photo(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=100))
    assert cmyk.notes == (CMYK,)
    assert cmyk.pixels_HW3[4, 4, 0] > 200 and cmyk.pixels_HW3[4, 4, 1] < 50
    deep = open_photo(encoded(Image.fromarray(np.full((8, 8), 100 * 257, np.uint16)), "PNG"))
    assert deep.notes == (DEEP,) and deep.pixels_HW3[0, 0].tolist() == [100, 100, 100]
    clear = open_photo(encoded(Image.new("RGBA", (8, 8), (200, 100, 50, 0)), "PNG"))
    assert clear.notes == (TRANSPARENT,) and not clear.pixels_HW3.any()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_photo_cut_short_is_damaged(make_picture, form: str) -> None:
    whole = encoded(Image.fromarray(make_picture(0, 64)), form)
    with pytest.raises(PhotoError, match="damaged image: ") as error:
        open_photo(whole[: len(whole) // 2])
    assert error.value.reason == DAMAGED


def test_other_files_are_not_images() -> None:
    for data in (b"", b"hello", b"%PDF-1.7 ...", b"\x00" * 100):
        with pytest.raises(PhotoError) as error:
            open_photo(data)
        assert error.value.reason == NOT_AN_IMAGE


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(PhotoError, match="floating-point pixels, whose range is unknown"):
        open_photo(encoded(Image.fromarray(np.ones((8, 8), np.float32)), "TIFF"))


@pytest.mark.parametrize("size", [(101, 100), (60_000, 60_000)])
def test_a_photo_of_too_many_pixels_is_not_decoded(size: tuple[int, int]) -> None:
    header = encoded(Image.new("L", (1, 1)), "PPM").replace(b"1 1", b"%d %d" % size)
    with pytest.raises(PhotoError) as error:
        open_photo(header, max_pixels=10_000)
    assert error.value.reason == TOO_LARGE


def test_heic_without_its_extra_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photos, "_register_heif", lambda: False)
    with pytest.raises(PhotoError) as error:
        open_photo(b"\0\0\0\x18ftypheic" + bytes(64))
    assert error.value.reason == NEEDS_HEIF


def test_heic_is_opened_where_pillow_heif_is_installed(make_picture) -> None:
    heif = pytest.importorskip("pillow_heif")
    heif.register_heif_opener()
    pixels = make_picture(1, 64)
    photo = open_photo(encoded(Image.fromarray(pixels), "HEIF", quality=90))
    assert np.abs(photo.pixels_HW3.astype(int) - pixels).mean() < 8
