"""The commands prepare and align."""

import json
from pathlib import Path

import pytest
from PIL import Image

from facescale.data.loading.decode import encode_jpeg
from facescale.prepare.align import TEMPLATE
from tests.pictures import picture


@pytest.fixture
def photos(make_folder, tmp_path: Path) -> Path:  # type: ignore[no-untyped-def]
    root: Path = make_folder(
        {f"{who}/{n}.jpg": encode_jpeg(picture(n, 150)) for who in "ab" for n in (ord(who), 3)}
    )
    points = " ".join(str(v) for v in (TEMPLATE + 10).ravel())
    (tmp_path / "points.txt").write_text(
        "".join(f"{who}/{n}.jpg {points}\n" for who in "ab" for n in (ord(who), 3))
    )
    return root


def test_prepare_says_what_it_kept_and_where(facescale, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    words = (
        "prepare",
        photos,
        tmp_path / "out",
        "--landmarks",
        tmp_path / "points.txt",
        "--min-sharpness",
        0,
    )
    code, out, err = facescale(*words)
    assert (code, err) == (0, "")
    assert "2 of 4 photos kept, of 2 identities" in out and "same file under several identities" in out
    assert f"{tmp_path / 'out'}: the data set, report.html" in out
    code, _, err = facescale(*words)
    assert code == 2 and "is not an empty folder; choose a new one for the data set" in err


def test_prepare_prints_json(facescale, photos: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    options = ("--landmarks", tmp_path / "points.txt", "--min-sharpness", 0, "--json")
    code, out, _ = facescale("prepare", photos, tmp_path / "out", *options)
    values = json.loads(out)
    assert code == 0 and (values["kept"], values["identities"], values["continued"]) == (2, 2, 0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prepare", "{photos}/a/3.jpg", "out"), "is a file; give the folder that holds the photos"),
        (
            ("prepare", "{photos}", "{photos}/out"),
            "lie inside each other; put the data set beside the photos",
        ),
        (("prepare", "{photos}", "out", "--detector", "mtcnn"), "unknown detector 'mtcnn'"),
        (
            ("prepare", "{photos}", "out", "--landmarks", "p.txt", "--detector", "yuface"),
            "--landmarks replaces --detector yuface; give one of them",
        ),
        (("align", "{photos}/a/3.jpg", "out.gif"), "cannot write a crop to 'out.gif'"),
        (("align", "nowhere.jpg", "out.png"), "nowhere.jpg"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(  # type: ignore[no-untyped-def]
    facescale, photos: Path, tmp_path: Path, monkeypatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("facescale.prepare.detect.available_detector", lambda: "yuface")
    code, out, err = facescale(*(word.format(photos=photos) for word in words))
    assert (code, out) == (2, "") and err.startswith("facescale: ") and err.count("\n") == 1
    assert message in err


def test_align_writes_the_face_of_one_photo(facescale, photos: Path, tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    from facescale.prepare.detect import DETECTORS, Face

    class Fixed:
        def __call__(self, photo_HW3):  # type: ignore[no-untyped-def]
            side = max(photo_HW3.shape)
            return [Face((0, 0, side, side), (TEMPLATE + 10) * side / 150, 0.9)]

    class Blind:
        def __call__(self, photo_HW3):  # type: ignore[no-untyped-def]
            return []

    monkeypatch.setitem(DETECTORS, "yuface", lambda least: Fixed())
    monkeypatch.setitem(DETECTORS, "centerface", lambda least: Blind())
    photo = photos / "a" / "3.jpg"
    for name in ("crop.png", "crop.jpg"):
        code, out, _ = facescale("align", photo, tmp_path / name, "--detector", "yuface", "--size", 64)
        assert (code, out) == (0, f"{tmp_path / name}: 64x64 pixels\n")
        assert Image.open(tmp_path / name).size == (64, 64)
    code, _, err = facescale("align", photo, tmp_path / "none.png", "--detector", "centerface")
    assert (code, err) == (2, f"facescale: no face found in '{photo}' (150x150 pixels)\n")
    (photos / "text.jpg").write_text("hello")
    code, _, err = facescale("align", photos / "text.jpg", tmp_path / "x.png", "--detector", "yuface")
    assert (code, err) == (2, f"facescale: cannot open the photo '{photos / 'text.jpg'}': not an image\n")
