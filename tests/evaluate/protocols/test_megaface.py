"""MegaFace from folders in the released layout: lists, noise lists, images, feature files."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from facescale.data.loading.decode import encode_jpeg
from facescale.evaluate.protocols.devkit import ends_in, read_feature, read_list, read_noises, write_feature
from facescale.evaluate.protocols.megaface import MegaFace, read_megaface
from facescale.evaluate.protocols.open import open_protocol

PROBES = ["Ann/Ann_1.png", "Ann/Ann_2.png", "Bob/Bob_1.png", "Bob/Bob_2.png", "Bob/Bob_3.png"]
DISTRACTORS = [f"{k}/9@N0{k}/{k}.jpg" for k in range(4)]


def write_release(folder: Path, probes: list[str] = PROBES, distractors: list[str] = DISTRACTORS) -> Path:
    folder.mkdir(parents=True)
    (folder / "facescrub_lst").write_text("".join(f"{name}\n" for name in probes))
    (folder / "megaface_lst").write_text("".join(f"{name}\n" for name in distractors))
    return folder


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for part, names in (("facescrub", PROBES), ("megaface", DISTRACTORS)):
        for name in names:
            path = folder / f"{part}_images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_jpeg(rng.integers(0, 255, (16, 16, 3), np.uint8), 95))


def write_features(folder: Path, part: str, names: list[str], rows: np.ndarray) -> None:
    for name, row in zip(names, rows, strict=True):
        path = folder / part / f"{name}_arcface.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("<4i", len(row), 1, 4, 5) + row.astype("<f4").tobytes())


def pixels(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1).float() - 127


def test_golden_figures_from_the_command_line(
    golden: Path, facescale: Callable[..., tuple[int, str, str]], tiny_run: Path, tmp_path: Path
) -> None:
    """Golden section I: F2C's MegaFace tool, from feature files and lists."""
    expected, z = json.loads((golden / "I_megaface.json").read_text()), np.load(golden / "I_megaface.npz")
    probes = [f"{person}/{person}_{k}.png" for k, person in enumerate(z["probe_labels"])]
    others = [f"{k % 7}/{k % 50}@N00/{k}.jpg" for k in range(len(z["distractor_feats"]))]
    folder = write_release(tmp_path / "devkit" / "data", probes, others).parent
    write_features(tmp_path / "out", "facescrub", probes, z["probe_feats"])
    write_features(tmp_path / "out", "megaface", others, z["distractor_feats"])
    spec = f"megaface:{folder}?features={tmp_path}/out"
    words = ("evaluate", str(tiny_run), "--on", f"ffc={spec}&rule=ffc", "--on", f"exact={spec}")
    code, out, err = facescale(*words, "--out", str(tmp_path / "page.html"), "--json")
    assert code == 0, err
    ffc, exact = json.loads(out)["results"]
    assert (ffc["rule"], exact["rule"]) == ("ffc, noise centre", "devkit, noise centre")
    for one in (ffc, exact):
        assert one["figures"]["rank1"] == pytest.approx(expected["rank1"]["accuracy"], abs=1e-12)
        assert one["counts"]["genuine pairs"] == expected["rank1"]["total_ordered_mate_pairs"]
    for far, (tar, _) in expected["find_score"].items():
        assert ffc["figures"][f"tar@far={float(far):g}"] == pytest.approx(tar, abs=1e-3)
    for far in ("1e-6", "1e-7", "1e-8", "1e-9"):
        shown = expected["reference_table_percent"][f"far={far}"]
        assert 100 * ffc["figures"][f"tar@far={float(far):g}"] == pytest.approx(shown, abs=0.1)
    assert "rank10" in exact["figures"] and "tar@far=0.001" in exact["figures"]
    for name in ("rank1", "rank10", "tar@far=0.001"):
        low, high = exact["intervals"][name]
        assert low <= exact["figures"][name] <= high
    assert "exact: FAR 1e-06: 750,000 impostor pairs are too few for it" in exact["notes"]


def test_images_are_embedded_and_written_as_features_that_give_the_same_figures(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "mf")
    write_images(folder)
    first = open_protocol(f"megaface:{folder}?write={tmp_path}/out", 16).measure(pixels)
    assert first.counts == {
        "probes": 5,
        "people": 2,
        "distractors": 4,
        "genuine pairs": 8,
        "impostor pairs": 20,
    }
    assert len(list((tmp_path / "out").rglob("*_facescale.bin"))) == 9
    header = (tmp_path / "out/facescrub/Ann/Ann_1.png_facescale.bin").read_bytes()[:16]
    assert struct.unpack("<4i", header) == (768, 1, 4, 5)
    again = open_protocol(f"megaface:{folder}?features={tmp_path}/out", 16).measure(pixels)
    assert dict(again.figures()) == dict(first.figures())


def test_wrong_labels_become_the_centre_of_their_person_or_are_removed(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "mf")
    (folder / "facescrub_noises.txt").write_text("# by hand\nBob_2.png\n")
    (folder / "megaface_noises.txt").write_text("# by hand\n3\t1/9@N01/1.jpg\n0/9@N00/0.jpg\n")
    lists = read_megaface(folder)
    assert lists.noisy.tolist() == [False, False, False, True, False]
    assert lists.distractors == DISTRACTORS[2:]
    assert lists.remarks == (
        "1 of 5 probes have wrong labels (facescrub_noises)",
        "2 of 4 distractors are left out (noises)",
    )
    angles = np.radians([0, 10, 90, 250, 110])  # Bob_2 looks like nobody; the centre of Bob is at 100
    probes = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    others = np.array([[0, -1], [0, -1]], np.float32)
    centred = MegaFace("x", lists).score(probes, others)
    removed = MegaFace("x", lists, noise="remove").score(probes, others)
    assert centred.counts["genuine pairs"] == 8 and removed.counts["genuine pairs"] == 4
    assert centred.values["rank1"] == removed.values["rank1"] == 1.0
    as_it_is = MegaFace("x", read_megaface(write_release(tmp_path / "clean"))).score(probes, others)
    assert as_it_is.values["rank1"] < 1


def test_a_person_with_wrong_labels_only_is_left_out(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "mf")
    (folder / "facescrub_noises.txt").write_text("Ann_1.png\nAnn_2.png\n")
    result = MegaFace("x", read_megaface(folder)).score(
        np.eye(5, 6, dtype=np.float32), -np.eye(2, 6, dtype=np.float32)
    )
    assert result.counts["people"] == 1 and result.counts["probes"] == 3


def test_a_limit_keeps_people_whole(tmp_path: Path) -> None:
    folder = write_release(tmp_path / "mf")
    write_images(folder)
    result = open_protocol(f"megaface:{folder}", 16, limit=3).measure(pixels)
    assert (result.counts["probes"], result.counts["distractors"]) == (2, 3)
    assert any("limited to 2 of 5 probes (the first people, whole)" in note for note in result.notes())
    assert any("limited to 3 of 4 distractors" in note for note in result.notes())


def test_the_lists_of_the_devkit_are_taken_too(tmp_path: Path) -> None:
    (tmp_path / "facescrub_features_list.json").write_text(json.dumps({"path": PROBES, "id": ["a"] * 5}))
    for count in (10, 4):
        name = f"megaface_features_list.json_{count}_1"
        (tmp_path / name).write_text(json.dumps({"path": [f"0/x/{k}.jpg" for k in range(count)]}))
    lists = read_megaface(tmp_path)
    assert lists.probes == PROBES and len(lists.distractors) == 10
    assert lists.people.tolist() == [0, 0, 1, 1, 1]


def test_features_are_written_and_read_bit_by_bit(tmp_path: Path) -> None:
    feature = np.random.default_rng(0).normal(size=12).astype(np.float32)
    write_feature(tmp_path / "a/b/x.bin", feature)
    np.testing.assert_array_equal(read_feature(tmp_path / "a/b/x.bin"), feature)
    assert ends_in(["a/b/c", "b/c", "c"], frozenset(["b/c"]), 2) == [True, True, False]
    (tmp_path / "n.txt").write_text("#x\n1\tb/c\n\nd\n")
    assert read_noises(tmp_path / "n.txt") == {"b/c", "d"}


def broken(folder: Path, name: str, content: bytes) -> Callable[[], object]:
    def write_and_read() -> object:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return read_feature(path) if name.endswith(".bin") else read_list(path)

    return write_and_read


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.bin", b"", "is not a devkit feature: its 0 bytes"),
        ("x.bin", struct.pack("<4i", 3, 1, 4, 5) + b"\0" * 8, "where D, 1, 4, 5 and then D float32 belong"),
        ("x.bin", struct.pack("<4i", 1, 1, 4, 6) + b"\0" * 4, "where D, 1, 4, 5"),
        ("x.json", b"{}", "needs the key 'path' with a list of names"),
        ("lst", b"\n", "names no image"),
        ("lst", b"../../etc/x.png\n", "names '../../etc/x.png', which is outside the folder"),
    ],
)
def test_damaged_files_are_one_sentence(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        broken(tmp_path, name, content)()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere", "has no list facescrub_lst or facescrub_features_list.json; name the folder"),
        ("{0}?write=a&features=b", "reads features and writes them; give one of"),
        ("{0}?rule=fast", "rule=fast is not known; choose one of: devkit, ffc"),
        ("{0}?features={0}", "has 0 feature files 'Ann/Ann_1.png_ALGORITHM.bin'"),
        ("{0}", "5 of 5 images are not in"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(tmp_path: Path, spec: str, message: str) -> None:
    folder = write_release(tmp_path / "mf")
    with pytest.raises(ValueError, match=message):
        open_protocol(f"megaface:{spec.format(folder)}", 16).measure(pixels)


def test_other_faults_of_files_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot read the feature file '.*x.bin'"):
        read_feature(tmp_path / "x.bin")
    with pytest.raises(ValueError, match=r"cannot read the list '.*noises'"):
        read_noises(tmp_path / "noises")
    with pytest.raises(ValueError, match=r"a feature of shape \(2, 2\) is not a vector"):
        write_feature(tmp_path / "y.bin", np.ones((2, 2)))
    folder = write_release(tmp_path / "mf")
    write_features(tmp_path / "out", "facescrub", PROBES[:1], np.ones((1, 3)))
    write_features(tmp_path / "out", "facescrub", PROBES[1:], np.ones((4, 2)))
    with pytest.raises(ValueError, match="has 2 numbers, the others 3"):
        open_protocol(f"megaface:{folder}?features={tmp_path}/out").measure(pixels)
    with pytest.raises(ValueError, match=r"'loose.png' of the probes is in no folder; it needs PERSON/IMAGE"):
        read_megaface(write_release(tmp_path / "flat", ["loose.png"]))
