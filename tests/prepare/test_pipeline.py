"""facescale.prepare.pipeline: photos with a file of landmarks, so that no detector is needed."""

import csv
import json
import os
import subprocess
import sys
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from facescale.data import open_reader
from facescale.data.loading.decode import decode, encode_jpeg
from facescale.prepare import align
from facescale.prepare.align import TEMPLATE
from facescale.prepare.detect import DETECTORS, Face
from facescale.prepare.examine import Settings
from facescale.prepare.journal import Journal
from facescale.prepare.pipeline import Options, prepare
from facescale.prepare.quality import Limits
from facescale.prepare.workers import _finished
from tests.pictures import picture

LANDMARKS = TEMPLATE * 1.2 + 20
LOOSE = Limits(min_sharpness=0)


@pytest.fixture
def photos(make_folder, tmp_path: Path) -> Path:
    """Three identities; one photo twice, one under two names, one broken, one small, one unknown."""
    images = {
        f"{who}/{n}.jpg": encode_jpeg(picture(10 * i + n, 200))
        for i, who in enumerate("abc")
        for n in range(4)
    }
    images["a/again.jpg"] = images["a/0.jpg"]
    images["b/shared.jpg"] = images["c/shared.jpg"] = encode_jpeg(picture(77, 200))
    images["b/broken.jpg"] = images["b/0.jpg"][:900]
    images["b/notes.jpg"] = b"no picture"
    images["d/small.jpg"] = encode_jpeg(picture(50, 200))
    images["d/unknown.jpg"] = encode_jpeg(picture(51, 200))
    images["Thumbs.db"] = b"x"
    root = make_folder(images, "photos")
    with (tmp_path / "points.txt").open("w") as file:
        for key in sorted(images):
            points = LANDMARKS * 0.2 if "small" in key else LANDMARKS
            if "unknown" not in key:
                file.write(f"{key} {' '.join(f'{v:.2f}' for v in points.ravel())}\n")
    return root


def options(tmp_path: Path, **changed) -> Options:
    settings = Settings(detector="", landmarks=str(tmp_path / "points.txt"))
    return Options(**{"settings": settings, "limits": LOOSE, **changed})


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_photos_become_a_data_set_and_every_file_is_accounted_for(photos: Path, tmp_path: Path) -> None:
    done = prepare(photos, tmp_path / "out", options(tmp_path))
    report = done.report
    assert (report.files, report.kept, report.identities) == (19, 12, 3)
    assert report.dropped == {
        "same file under several identities": 2,
        "damaged image": 1,
        "face too small": 1,
        "not an image": 1,
        "not in the landmark file": 1,
        "same file again": 1,
    }
    assert report.passed_over == {"hidden or system file": 1}
    assert report.lost_identities == ["d"]
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == json.loads(
        json.dumps(report.to_dict())
    )
    with (tmp_path / "out" / "photos.csv").open(newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    assert len(rows) == 20 and rows["a/again.jpg"]["equals"] == "a/0.jpg"
    assert {row["outcome"] for row in rows.values()} == {"kept", "dropped", "passed over"}
    assert rows["a/0.jpg"]["face_px"] == "134.4"
    page = (tmp_path / "out" / "report.html").read_text()
    assert all(reason in page for reason in report.dropped) and "d/small.jpg" in page
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "photos", "points.txt"]


@pytest.mark.parametrize("form", ["recordio", "im2rec", "folder"])
def test_the_crops_are_those_of_the_public_aligner_under_their_names(
    photos: Path, tmp_path: Path, form: str
) -> None:
    prepare(photos, tmp_path / "out", options(tmp_path, form=form))
    reader = open_reader(tmp_path / "out")
    assert len(reader) == 12 and np.bincount(reader.ids).tolist() == [4, 4, 4]
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == {"0": "a", "1": "b", "2": "c"}
    found = {decode(reader[i][0]).tobytes() for i in range(12)}
    points = np.round(LANDMARKS, 2)
    expected = align(decode((photos / "c" / "2.jpg").read_bytes()), points)
    assert decode(encode_jpeg(expected)).tobytes() in found


def test_the_result_is_the_same_for_any_number_of_workers(photos: Path, tmp_path: Path) -> None:
    prepare(photos, tmp_path / "one", options(tmp_path))
    prepare(photos, tmp_path / "two", options(tmp_path, workers=2))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


KILLED = """
import os, signal, sys
from tests.prepare.test_pipeline import options
from facescale.prepare.pipeline import prepare
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

def kill(done, total):
    if done == 7:
        os.kill(os.getpid(), signal.SIGKILL)

prepare(Path(sys.argv[1]), Path(sys.argv[2]), options(Path(sys.argv[3]), workers=2), kill)
"""


def test_a_killed_run_continues_and_ends_as_if_nothing_had_happened(photos: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", KILLED, str(photos), str(tmp_path / "out"), str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    # It waits for the workers, too, which hold the pipe: they must end with the process that was killed.
    assert subprocess.run(words, env=environment, stdout=subprocess.PIPE, timeout=60).returncode == -9
    assert not (tmp_path / "out").exists()
    with (tmp_path / ".out.preparing" / "journal.jsonl").open("ab") as file:
        file.write(b'{"finding": {"key"')  # as a kill in the middle of a line leaves it
    with (tmp_path / ".out.preparing" / "pictures.bin").open("ab") as file:
        file.write(b"half a picture")
    assert prepare(photos, tmp_path / "out", options(tmp_path)).continued == 7
    prepare(photos, tmp_path / "whole", options(tmp_path))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def interrupt(at: int):
    def progress(done: int, total: int) -> None:
        if done == at:
            raise KeyboardInterrupt

    return progress


def test_changed_photos_and_damaged_crops_are_examined_again(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(photos, tmp_path / "out", options(tmp_path), interrupt(10))
    (photos / "a" / "1.jpg").write_bytes(encode_jpeg(picture(99, 210)))
    pictures = tmp_path / ".out.preparing" / "pictures.bin"
    data = bytearray(pictures.read_bytes())
    data[-1] ^= 1
    pictures.write_bytes(data)
    continued = prepare(photos, tmp_path / "out", options(tmp_path)).continued
    assert continued < 9
    prepare(photos, tmp_path / "whole", options(tmp_path))
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_other_settings_or_landmarks_examine_all_again_but_other_limits_do_not(
    photos: Path, tmp_path: Path
) -> None:
    def interrupted() -> None:
        with pytest.raises(KeyboardInterrupt):
            prepare(photos, tmp_path / "out", options(tmp_path), interrupt(15))

    interrupted()
    assert prepare(
        photos, tmp_path / "out", options(tmp_path, limits=Limits(min_face=10, min_sharpness=0))
    ).continued
    (tmp_path / "out").rename(tmp_path / "first")
    interrupted()
    with (tmp_path / "points.txt").open("a") as file:
        file.write("z/z.jpg 1 2 3 4 5 6 7 8 9 10\n")
    assert prepare(photos, tmp_path / "out", options(tmp_path)).continued == 0


def test_what_is_dropped_can_be_chosen(photos: Path, tmp_path: Path) -> None:
    (photos / "c" / "0.jpg").unlink()
    done = prepare(photos, tmp_path / "out", options(tmp_path, min_images=4))
    assert done.report.identities == 2
    assert done.report.dropped["identity with too few images"] == 3
    with pytest.raises(
        ValueError, match=r"none of 18 photos is left: face too small 12, .*loosen the limits"
    ):
        prepare(photos, tmp_path / "none", options(tmp_path, limits=Limits(min_face=300)))
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("near", [0.99, None])
def test_near_duplicates_are_found_by_a_model(
    photos: Path, tmp_path: Path, monkeypatch, near: float | None
) -> None:
    class Pixels:
        """Embeds a picture as its pixels."""

        contract = SimpleNamespace(size=112)

        def embed(self, images_BHW3):
            flat = np.asarray(images_BHW3, np.float32).reshape(len(images_BHW3), -1)
            flat -= flat.mean(axis=1, keepdims=True)
            return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    again = decode((photos / "a" / "0.jpg").read_bytes())
    points = (tmp_path / "points.txt").read_text()
    line = next(line for line in points.splitlines() if line.startswith("a/0.jpg"))
    for name in ("a/resaved.jpg", "c/resaved.jpg"):
        (photos / name).write_bytes(encode_jpeg(again, 70 if name[0] == "a" else 60))
        points += line.replace("a/0.jpg", name) + "\n"
    (tmp_path / "points.txt").write_text(points)
    monkeypatch.setattr("facescale.inference.load.load", lambda path: Pixels())
    report = prepare(photos, tmp_path / "out", options(tmp_path, model="some.onnx", near=near)).report
    assert report.dropped["near-duplicate"] == 1
    (pair,) = report.lookalikes
    assert pair[0] in ("a/0.jpg", "a/resaved.jpg") and pair[1] == "c/resaved.jpg" and pair[2] > 0.99


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"workers": 0}, "workers = 0 must be at least 1"),
        ({"min_images": 0}, "min_images = 0 must be at least 1"),
        ({"near": 1.5}, "near = 1.5 must lie between 0 and 1"),
        ({"form": "lmdbb"}, "unknown form 'lmdbb'"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        options(tmp_path, **changed)


def test_settings_that_make_no_sense_are_refused() -> None:
    for changed, message in (
        ({"size": 8}, "size = 8 must be at least 16"),
        ({"min_score": 1.0}, "min_score = 1.0 must lie between 0 and 1"),
        ({"face": "first"}, "unknown face rule 'first'"),
    ):
        with pytest.raises(ValueError, match=message):
            Settings(**changed)


def test_folders_that_are_taken_or_inside_each_other_are_refused(photos: Path, tmp_path: Path) -> None:
    for out in (photos / "out", tmp_path / "missing" / ".." / "photos"):
        with pytest.raises(ValueError, match=r"lie inside each other|is not an empty folder"):
            prepare(photos, out, options(tmp_path))
    with pytest.raises(ValueError, match="is not an empty folder; choose a new one for the data set"):
        prepare(photos, photos / "a", options(tmp_path))
    assert "Thumbs.db" in {path.name for path in photos.iterdir()}


def test_two_runs_into_one_folder_are_refused(photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    opts = options(tmp_path)
    with (
        Journal(tmp_path / ".out.preparing", opts.settings, photos),
        pytest.raises(ValueError, match="another process works in"),
    ):
        prepare(photos, tmp_path / "out", opts)


def test_landmarks_on_one_spot_are_named(make_folder, tmp_path: Path) -> None:
    root = make_folder({f"a/{n}.jpg": encode_jpeg(picture(n, 200)) for n in range(2)}, "photos")
    good = " ".join(f"{v:.2f}" for v in LANDMARKS.ravel())
    (tmp_path / "points.txt").write_text(f"a/0.jpg {'5 5 ' * 5}\na/1.jpg {good}\n")
    report = prepare(root, tmp_path / "out", options(tmp_path)).report
    assert (report.kept, report.dropped) == (1, {"landmarks do not fit a face": 1})


class Fixed:
    """Finds the same face in every photo."""

    def __call__(self, photo_HW3: np.ndarray) -> list[Face]:
        side = max(photo_HW3.shape)
        return [Face((0, 0, side, side), LANDMARKS * side / 200, 0.9)]


def test_names_of_any_bytes_make_it_into_every_file(make_folder, tmp_path: Path, monkeypatch) -> None:
    names = [os.fsdecode(b"ann/\xfe 1.jpg"), 'new\nline/a,"b" <i>.jpg']
    try:
        root = make_folder({name: encode_jpeg(picture(n, 200)) for n, name in enumerate(names)}, "photos")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    monkeypatch.setitem(DETECTORS, "yuface", lambda least: Fixed())
    assert prepare(root, tmp_path / "out", Options(limits=LOOSE)).report.kept == 2
    with (tmp_path / "out" / "photos.csv").open(
        newline="", encoding="utf-8", errors="surrogateescape"
    ) as file:
        assert [row["path"] for row in csv.DictReader(file)] == names
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<i>" not in page and "&lt;i&gt;" in page
    assert json.loads((tmp_path / "out" / "labels.json").read_text()) == {"0": "ann", "1": "new\nline"}


def test_a_real_album_is_prepared(faces: Path, tmp_path: Path) -> None:
    pytest.importorskip("yuface")
    root = tmp_path / "photos"
    for folder in sorted((faces / "raw").iterdir())[:2]:
        (root / folder.name).mkdir(parents=True)
        for file in sorted(folder.iterdir())[:3]:
            (root / folder.name / file.name).write_bytes(file.read_bytes())
    report = prepare(root, tmp_path / "out", Options()).report
    assert (report.kept, report.identities, report.dropped) == (6, 2, {})


def test_a_worker_that_died_is_said() -> None:
    future: Future = Future()
    future.set_exception(BrokenProcessPool())
    with pytest.raises(RuntimeError, match=r"while it examined 'a/1.jpg' or a later photo; the same command"):
        _finished(["a/1.jpg", "a/2.jpg"], future)
