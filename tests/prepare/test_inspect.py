"""facescale.prepare.inspect: what a set holds, in numbers, words and one picture."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from facescale.data.loading.decode import decode, encode_jpeg
from facescale.data.readers.folder import FolderReader
from facescale.prepare import inspect
from facescale.prepare.contact_sheet import contact_sheet
from facescale.prepare.inspect import inspect_data


def test_identities_images_and_their_histogram_are_counted(make_reader):
    report = inspect_data(make_reader([0] * 12 + [1] * 3 + [2] + [3] + [4] * 4))
    assert (report.identities, report.images, report.images_read) == (5, 21, 21)
    assert report.images_per_identity == {"least": 1, "median": 3, "mean": 4.2, "most": 12}
    assert report.histogram == {"1": 2, "2": 0, "3-4": 2, "5-9": 0, "10-19": 1}
    assert any("2 identities have only one image" in hint for hint in report.hints)


@pytest.mark.parametrize("most", [499, 500, 2000])
def test_the_largest_identity_is_in_the_histogram(make_reader, most: int):
    reader = make_reader([0])
    reader.ids = np.zeros(most, np.int64)
    reader.images *= most
    histogram = inspect_data(reader, sample=1).histogram
    assert histogram == ({"200-499": 1} if most < 500 else {f"500-{most}": 1} if most > 500 else {"500": 1})


@pytest.mark.parametrize("workers", [0, 2])
def test_colours_are_means_over_all_pixels(make_reader, make_picture, workers: int):
    reader = make_reader([0, 0, 1])
    reader.images[1] = make_picture(4, 48)  # a larger image counts for more
    pixels = np.concatenate([decode(image).reshape(-1, 3) for image in reader.images]).astype(float)
    report = inspect_data(reader, workers=workers)
    assert np.allclose(report.channel_mean, pixels.mean(0))
    assert np.allclose(report.channel_std, pixels.std(0))
    assert report.sizes == {"24x24": 2, "48x48": 1}
    assert any("differ in size or are not square" in hint for hint in report.hints)


def test_swapped_channels_are_pointed_out(make_reader):
    reader = make_reader([0, 0])
    skin = np.full((24, 24, 3), (190, 140, 120), np.uint8)
    reader.images = [encode_jpeg(skin), encode_jpeg(skin // 2)]
    assert not inspect_data(reader).hints
    reader.images = [encode_jpeg(skin[..., ::-1]), encode_jpeg(skin[..., ::-1] // 2)]
    assert any("were the images written as BGR?" in hint for hint in inspect_data(reader).hints)


def test_unreadable_images_are_counted_and_named(make_reader):
    reader = make_reader([0, 0, 1, 1], bad=frozenset({2}))
    reader.images[0] = reader.images[0][:300]
    report = inspect_data(reader)
    assert report.num_bad == 2
    assert report.images_read == 4
    assert report.bad["memory/2"] == "made to fail"
    assert report.bad["memory/0"].startswith("damaged JPEG")
    assert any("2 images are unreadable" in hint for hint in report.hints)


def test_only_some_bad_images_are_named_but_all_are_counted(make_reader, monkeypatch):
    monkeypatch.setattr(inspect, "_LISTED", 3)
    report = inspect_data(make_reader([0] * 9, bad=frozenset(range(8))))
    assert report.num_bad == 8
    assert list(report.bad) == ["memory/0", "memory/1", "memory/2"]


def test_a_set_that_is_unreadable_altogether_is_reported_too(make_reader):
    report = inspect_data(make_reader([0, 1], bad=frozenset({0, 1})))
    assert report.num_bad == 2
    assert report.sizes == {}
    assert list(report.lines())


def test_equal_bytes_are_told_within_and_across_identities(make_reader):
    reader = make_reader([0, 0, 0, 1, 1])
    reader.images[2] = reader.images[0]
    reader.images[4] = reader.images[1]
    report = inspect_data(reader)
    assert (report.num_repeated, report.num_conflicts) == (1, 1)
    assert report.repeated == [("memory/0", "memory/2")]
    assert report.conflicts == [("memory/1", "memory/4")]
    assert any("one of the labels is wrong" in hint for hint in report.hints)
    assert any("more than once under the same identity" in hint for hint in report.hints)


def test_a_large_set_is_sampled_the_same_way_each_time(make_reader):
    reader = make_reader([0] * 60)
    report = inspect_data(reader, sample=10)
    assert (report.images, report.images_read) == (60, 10)
    first = sorted(reader.asked)
    reader.asked.clear()
    inspect_data(reader, sample=10)
    assert sorted(reader.asked) == first
    assert len(set(first)) == 10
    assert inspect_data(reader, sample=None).images_read == 60


def test_the_report_is_text_and_json(make_reader):
    report = inspect_data(make_reader([0, 0, 1], bad=frozenset({1})))
    text = "\n".join(report.lines())
    assert "identities           2" in text
    assert "memory/1: made to fail" in text
    assert "! 1 images are unreadable" in text
    assert json.loads(json.dumps(report.to_dict()))["sizes"] == {"24x24": 2}


def test_a_contact_sheet_has_a_row_for_each_identity(make_reader, make_picture, tmp_path):
    reader = make_reader([0] * 5 + [1] * 2 + [2], bad=frozenset({6}))
    reader.images[7] = make_picture(7, 48)[:24]
    contact_sheet(reader, tmp_path / "sheet.png", images=4, side=24)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (3 * 38, 4 * 24, 3)
    for column in range(4):
        assert np.array_equal(sheet[14:38, column * 24 : column * 24 + 24], decode(reader.images[column]))
    assert (sheet[52:76, 24:48] == (160, 0, 0)).all()  # unreadable
    assert not sheet[102:, :24].any()  # below a wide image
    assert sheet[90:102, :24].std() > 5
    assert sheet[:14].max() > 100  # a name


def test_a_contact_sheet_shows_some_identities_of_many(make_reader, tmp_path):
    contact_sheet(make_reader(list(range(30))), tmp_path / "sheet.png", identities=5, images=2, side=24)
    assert Image.open(tmp_path / "sheet.png").size == (48, 5 * 38)


def test_what_is_unusual_or_passed_over_is_counted_and_said(make_folder, make_picture):
    jpeg = encode_jpeg(make_picture(1))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned, clear = io.BytesIO(), io.BytesIO()
    Image.fromarray(make_picture(2)).save(turned, "JPEG", exif=exif)
    Image.fromarray(make_picture(3)).convert("RGBA").save(clear, "PNG")
    files = {
        "a/1.jpg": jpeg,
        "a/2.jpg": jpeg[:-2] + b"\x11\x22\x33" * 5 + jpeg[-2:],
        "a/3.jpg": turned.getvalue(),
    }
    reader = FolderReader(
        make_folder(files | {"a/4.png": clear.getvalue(), "a/5.heic": b"", "a/6.heic": b""})
    )
    report = inspect_data(reader)
    assert report.num_bad == 0
    assert report.unusual == {"stray bytes": 1, "turned upright by EXIF": 1, "transparent, on black": 1}
    assert report.passed_over == {".heic": 2}
    text = "\n".join(report.lines())
    assert "passed over          .heic (2)\n" in text
    assert "unusual              stray bytes (1), turned" in text
    assert json.loads(json.dumps(report.to_dict()))["passed_over"] == {".heic": 2}


def test_sizes_are_summarised_beyond_the_most_frequent(make_reader, make_picture):
    reader = make_reader([0] * 12)
    reader.images = [encode_jpeg(make_picture(n, 20 + max(0, n - 4))) for n in range(12)]
    (line,) = (line for line in inspect_data(reader).lines() if line.startswith("sizes"))
    assert "20x20 (5), 21x21 (1), 22x22 (1)" in line
    assert line.endswith("24x24 (1), 3 others, 25 to 27 wide, 25 to 27 high")
