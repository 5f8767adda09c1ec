"""IJB-B and IJB-C from folders in the released layout."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facescale.data.loading.decode import encode_jpeg
from facescale.evaluate.protocols.alignment_check import alignment_note, residuals
from facescale.evaluate.protocols.feature_arrays import read_array
from facescale.evaluate.protocols.ijb_lists import read_ijb
from facescale.evaluate.protocols.ijb_protocol import Ijb
from facescale.evaluate.protocols.open import open_protocol
from facescale.prepare.align import TEMPLATE, align, similarity


def write_lists(folder: Path, kind: str, lists: dict[str, Any]) -> Path:
    """The files of a release: lists in meta/, images (where given) in loose_crop/."""
    meta = folder / "meta"
    meta.mkdir(parents=True)
    names = [f"{number + 1}.jpg" for number in range(len(lists["templates"]))]
    rows = zip(names, lists["templates"], lists["medias"], strict=True)
    (meta / f"{kind}_face_tid_mid.txt").write_text("".join(f"{n} {t} {m}\n" for n, t, m in rows))
    points = lists.get("points", np.tile(TEMPLATE, (len(names), 1, 1)))
    (meta / f"{kind}_name_5pts_score.txt").write_text(
        "".join(
            f"{n} {' '.join(map(repr, p.ravel().tolist()))} {s!r}\n"
            for n, p, s in zip(names, points, np.asarray(lists["scores"], np.float64).tolist(), strict=True)
        )
    )
    (meta / f"{kind}_template_pair_label.txt").write_text(
        "".join(f"{a} {b} {int(same)}\n" for (a, b), same in zip(lists["pairs"], lists["same"], strict=True))
    )
    for file, people in lists.get("people", {}).items():
        text = "".join(f"{t},{s},extra\n" for t, s in people)
        (meta / f"{kind}_1N_{file}.csv").write_text("TEMPLATE_ID,SUBJECT_ID,FILENAME\n" + text)
    return folder


def small(**changes: Any) -> dict[str, Any]:
    lists: dict[str, Any] = {
        "templates": [1, 1, 2, 3],
        "medias": [10, 10, 11, 12],
        "scores": [0.9, 0.8, 0.7, 1.0],
        "pairs": [(1, 2), (1, 3), (2, 3)],
        "same": [True, False, False],
    }
    return lists | changes


def test_the_command_line_gives_the_figures_of_the_released_scripts(
    golden: Path, facescale: Callable[..., tuple[int, str, str]], tiny_run: Path, tmp_path: Path
) -> None:
    """Golden section H: eval_ijbc at all its settings, both 1:N scripts and F2C, from lists and features."""
    expected, z = json.loads((golden / "H_ijb.json").read_text()), np.load(golden / "H_ijb.npz")
    lists = {
        "templates": z["in/templates"],
        "medias": z["in/medias"],
        "scores": z["in/faceness"],
        "pairs": np.stack([z["in/p1"], z["in/p2"]], axis=1),
        "same": z["in/label"] == 1,
        "people": {
            "gallery_G1": z["in/gallery1"],
            "gallery_G2": z["in/gallery2"],
            "probe_mixed": z["in/probe_mixed"],
        },
    }
    folder = write_lists(tmp_path / "IJBC", "ijbc", lists)
    np.save(tmp_path / "views.npy", z["in/feats"].reshape(900, 2, 48))
    np.savez(tmp_path / "ffc.npz", features=z["ffc/image_feats"])
    spec = f"ijb:{folder}?features={tmp_path}/views.npy"
    on = {flags: f"{spec}&setting={flags}" for flags in expected["eval_ijbc"]}
    on |= {f"{flags}, all": f"{path}&rule=all_points" for flags, path in on.items()}
    on["pooled"] = f"{spec}&one_to_n=ijb_1n"
    on["ffc"] = f"ijb:{folder}?features={tmp_path}/ffc.npz&setting=N0D0F0&rule=ffc"
    words = [word for name, path in on.items() for word in ("--on", f"{name}={path}")]
    code, out, err = facescale("evaluate", str(tiny_run), *words, "--out", str(tmp_path / "x.html"), "--json")
    assert code == 0, err
    results = {one["name"]: one for one in json.loads(out)["results"]}
    fars = [f"tar@far={far:g}" for far in expected["far_points"]]

    def figures(name: str) -> dict[str, float]:
        return results[name]["figures"]

    for flags, answer in expected["eval_ijbc"].items():
        np.testing.assert_allclose([figures(flags)[far] for far in fars], answer["tar"], atol=1e-12)
        kept = [figures(f"{flags}, all")[far] for far in fars]
        np.testing.assert_allclose(kept, answer["tar_if_all_roc_points_kept"], atol=1e-12)
        for far, (low, high) in results[flags]["intervals"].items():
            assert low <= figures(flags)[far] <= high
    per_gallery = expected["ijb_evals_1n"]["mean"]
    for k in (1, 5, 10):
        assert figures("N1D1F1")[f"rank{k}"] == pytest.approx(per_gallery[f"top{k}"], abs=1e-12)
        assert figures("pooled")[f"rank{k}"] == pytest.approx(expected["ijb_1n"][f"top{k}"], abs=1e-12)
    for fpir, tpir in per_gallery["tpir_at_fpir"].items():
        assert figures("N1D1F1")[f"tpir@fpir={float(fpir):g}"] == pytest.approx(tpir, abs=1e-12)
    for row in expected["ijb_1n"]["fpir"]:
        found = figures("pooled")[f"recall@pooled_fpir={row['far']:g}"]
        assert found == pytest.approx(row["tpir"], abs=1e-9)
    for far, answer in expected["ffc_test_ijbc_find_score"].items():
        key = f"tar@far={float(far):g}"
        if key in figures("ffc"):
            assert figures("ffc")[key] == pytest.approx(answer[0] if answer else 0.0, abs=1e-4)
    assert results["N0D1F0, all"]["rule"] == "N0D1F0, all_points, ijb_evals"
    assert results["N1D1F1"]["counts"] == {
        "images": 900,
        "templates": 300,
        "genuine pairs": 450,
        "impostor pairs": 19550,
        "probes": 225,
    }
    assert any(
        "setting N0D1F0, rule insightface: TAR at the nearest" in n for n in results["N0D1F0"]["notes"]
    )


@pytest.mark.parametrize("one_to_n", ["ijb_evals", "ijb_1n"])
def test_figures_have_intervals_of_subjects(tmp_path: Path, one_to_n: str) -> None:
    """60 subjects with five templates each: all pairs are compared, the first template is enrolled."""
    rng = np.random.default_rng(0)
    templates, subjects = np.arange(300), np.repeat(np.arange(60), 5)
    a, b = np.triu_indices(300, 1)
    first = templates % 5 == 0
    sides = {"gallery_G1": subjects < 30, "gallery_G2": subjects >= 30}
    people = {
        name: zip(templates[first & side], subjects[first & side], strict=True)
        for name, side in sides.items()
    }
    people["probe_mixed"] = zip(templates[~first], subjects[~first], strict=True)
    lists = {
        "templates": templates,
        "medias": templates,
        "scores": np.ones(300),
        "pairs": list(zip(a, b, strict=True)),
        "same": subjects[a] == subjects[b],
        "people": people,
    }
    folder = write_lists(tmp_path / "ijb", "ijbc", lists)
    features = rng.normal(size=(60, 8))[subjects] + 0.8 * rng.normal(size=(300, 8))
    np.save(tmp_path / "x.npy", features.astype(np.float32))
    spec = f"ijb:{folder}?features={tmp_path}/x.npy&one_to_n={one_to_n}"
    tree = open_protocol(spec).measure(lambda x: x).to_dict()
    tpir = {"tpir@fpir=0.1"} if one_to_n == "ijb_evals" else set()
    ranks = {"rank1", "rank5", "rank10"}
    assert tree["intervals"].keys() == {"tar@far=0.1", "tar@far=0.01", "tar@far=0.001", *ranks, *tpir}
    for name, (low, high) in tree["intervals"].items():
        assert low <= tree["figures"][name] <= high and high - low < 0.6


def test_images_are_aligned_by_their_landmarks(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = (TEMPLATE + 0.5) * 1.3 - 0.5 + rng.uniform(0, 20, (4, 1, 2))
    folder = write_lists(tmp_path / "ijb", "ijbb", small(points=points))
    (folder / "loose_crop").mkdir()
    y, x = np.mgrid[0:180, 0:180] / 180
    photos = [np.stack([255 * x, 255 * y, 40 * k + 0 * x], -1).astype(np.uint8) for k in range(4)]
    for number, photo in enumerate(photos):
        (folder / "loose_crop" / f"{number + 1}.jpg").write_bytes(encode_jpeg(photo, 100))
    seen: list[np.ndarray] = []

    def embed(images: torch.Tensor) -> torch.Tensor:
        seen.extend(images.numpy())
        return images.float().mean(dim=(1, 2)) - 100

    result = open_protocol(f"ijb:{folder}", 112, flip=False, batch_size=2).measure(embed)
    for got, photo, landmarks in zip(seen[:4], photos, points, strict=True):
        assert np.abs(got.astype(int) - align(photo, landmarks)).max() <= 8  # JPEG
    assert result.to_dict()["counts"]["templates"] == 3 and "rank1" not in dict(result.figures())
    assert any("FAR 1e-06 is 2e-06 of 2 impostor pairs" in note for note in result.notes())


def test_norms_and_detector_scores_weigh_images(tmp_path: Path) -> None:
    """A template is the sum over media of the mean of score times raw feature."""
    protocol = Ijb("x", read_ijb(write_lists(tmp_path / "ijb", "ijbc", small())), align)
    x = np.array([[3.0, 0], [0, 1], [1, 1], [1, -1]])
    tar = protocol.score(x).values["tar@far=0.1"]
    t1, t2 = (0.9 * x[0] + 0.8 * x[1]) / 2, x[2]
    genuine = t1 @ t2 / np.linalg.norm(t1) / np.linalg.norm(t2)
    impostor = t1 @ x[3] / np.linalg.norm(t1) / np.linalg.norm(x[3])
    assert tar == float(genuine > impostor)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda meta: (meta / "ijbc_face_tid_mid.txt").unlink(), "has 0 lists ijbb_face_tid_mid.txt or"),
        (lambda meta: (meta / "ijbc_name_5pts_score.txt").unlink(), "cannot read the list .*5pts_score.txt'"),
        (
            lambda meta: (meta / "ijbc_template_pair_label.txt").unlink(),
            "cannot read the list .*label.txt'",
        ),
        (
            lambda meta: (meta / "ijbc_template_pair_label.txt").write_text("1 2 1\n1 x 0\n"),
            "is not a list of 3 whole numbers a line",
        ),
        (
            lambda meta: (meta / "ijbc_name_5pts_score.txt").write_text("1.jpg 1 2 3\n"),
            "is not a list of a name and 11 numbers a line",
        ),
        (
            lambda meta: (meta / "ijbc_name_5pts_score.txt").write_text("9.jpg " + "1 " * 11 + "\n"),
            "do not name the same images",
        ),
        (
            lambda meta: (meta / "ijbc_1N_probe_mixed.csv").write_text("A,B\n1;2\n"),
            "is not a CSV whose first columns are template and subject",
        ),
    ],
)
def test_damaged_lists_are_one_sentence(tmp_path: Path, damage: Any, message: str) -> None:
    folder = write_lists(tmp_path / "ijb", "ijbc", small())
    damage(folder / "meta")
    with pytest.raises(ValueError, match=message):
        read_ijb(folder)


def test_an_image_that_is_missing_is_named(tmp_path: Path) -> None:
    protocol = open_protocol(f"ijb:{write_lists(tmp_path / 'ijb', 'ijbc', small())}")
    with pytest.raises(ValueError, match=r"image '.*loose_crop/1.jpg' of the protocol cannot be read"):
        protocol.measure(lambda images: images.float().mean(dim=(1, 2)))


def test_a_limit_keeps_people_whole_with_their_pairs_and_subjects(tmp_path: Path) -> None:
    lists = small(
        templates=[1, 1, 2, 3, 4, 5],
        medias=[10, 10, 11, 12, 13, 14],
        scores=[1.0] * 6,
        pairs=[(1, 3), (1, 2), (2, 4), (1, 5)],
        same=[True, False, True, False],
        people={"gallery_G1": [(1, 70), (2, 71)], "probe_mixed": [(3, 70), (4, 71), (5, 72)]},
    )
    whole = read_ijb(write_lists(tmp_path / "ijb", "ijbc", lists))
    part = whole.limited(5)  # 1 and 3 are one person with three images, 2 and 4 another one with two
    assert part.files == ["1.jpg", "2.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert part.pairs.tolist() == [[1, 3], [1, 2], [2, 4]] and part.is_genuine.tolist() == [1, 0, 1]
    assert part.galleries[0].tolist() == [[1, 70], [2, 71]] and part.probes.tolist() == [[3, 70], [4, 71]]
    assert part.remarks[0].startswith("limited to 5 of 6 images (the first people, whole)")
    assert whole.limited(6) is whole and whole.limited(None) is whole
    with pytest.raises(ValueError, match="a limit of 3 images leaves no genuine or no impostor pair"):
        whole.limited(3)


def test_landmarks_in_another_order_are_said() -> None:
    rng = np.random.default_rng(0)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    points = (TEMPLATE @ turn.T * 1.7 + 30) + rng.normal(0, 3, (50, 5, 2))
    distance = residuals(points)
    for landmarks, got in zip(points, distance, strict=True):
        matrix = similarity(landmarks, TEMPLATE)
        aligned = landmarks @ matrix[:, :2].T + matrix[:, 2]
        assert got == pytest.approx(np.sqrt(((aligned - TEMPLATE) ** 2).sum(axis=1).mean()))
    assert alignment_note(points) == ()
    for order in ([1, 0, 2, 4, 3], [2, 0, 1, 3, 4]):
        (note,) = alignment_note(points[:, order])
        assert note.startswith("100% of the landmarks lie more than 12 of 112 pixels from the template")


def test_features_follow_the_lists_when_a_part_is_measured(tmp_path: Path) -> None:
    lists = small(templates=[9, 1, 2, 3], medias=[1, 2, 3, 4], pairs=[(1, 2), (1, 3), (9, 1)], same=[1, 0, 0])
    folder = write_lists(tmp_path / "ijb", "ijbc", lists)
    x = np.random.default_rng(0).normal(size=(4, 6))
    np.save(tmp_path / "x.npy", x)
    whole = open_protocol(f"ijb:{folder}?features={tmp_path}/x.npy")
    part = open_protocol(f"ijb:{folder}?features={tmp_path}/x.npy", limit=3)
    assert part.lists.files == ["2.jpg", "3.jpg", "4.jpg"] and part.lists.pairs.tolist() == [[1, 2], [1, 3]]
    result = part.measure(lambda images: images)
    assert dict(result.figures()) == dict(part.score(x[1:]).figures())
    assert dict(whole.measure(lambda images: images).figures()) == dict(whole.score(x).figures())


def test_where_every_subject_is_enrolled_there_is_no_tpir(tmp_path: Path) -> None:
    people = {"gallery_G1": [(1, 70), (2, 71)], "probe_mixed": [(3, 70)]}
    folder = write_lists(tmp_path / "ijb", "ijbc", small(people=people))
    result = open_protocol(f"ijb:{folder}").score(np.random.default_rng(0).normal(size=(4, 6)))
    assert "rank1" in result.values and "tpir@fpir=0.1" not in result.values
    assert "no TPIR: each probe's subject is in each gallery" in result.remarks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("setting=N2D1F1", "setting=N2D1F1 is not known; write N0 or N1, D0 or D1, F0 or F1"),
        ("rule=exact", "rule=exact is not known; choose one of: insightface, all_points, ffc"),
        ("one_to_n=open", "one_to_n=open is not known; choose one of: ijb_evals, ijb_1n"),
        ("features={0}/no.npy", "cannot read the features '.*no.npy'"),
        ("features={0}/text.npy", "cannot read the features '.*text.npy'.*; give a .npy, or a .npz with"),
        (
            "features={0}/few.npy",
            r"holds float64 \(3, 5\); the list needs floats, \(4, D\) or \(4, views, D\)",
        ),
        ("features={0}/other.npz", "cannot read the features '.*other.npz'.*the entry 'features'"),
    ],
)
def test_options_that_do_not_fit_are_one_sentence(tmp_path: Path, options: str, message: str) -> None:
    folder = write_lists(tmp_path / "ijb", "ijbc", small())
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "few.npy", np.ones((3, 5)))
    np.savez(tmp_path / "other.npz", x=np.ones((4, 5)))
    with pytest.raises(ValueError, match=message):
        open_protocol(f"ijb:{folder}?{options.format(tmp_path)}").measure(lambda images: images)


def test_images_outside_the_folder_are_refused(tmp_path: Path) -> None:
    folder = write_lists(tmp_path / "ijb", "ijbc", small())
    for path in (folder / "meta").glob("*.txt"):
        path.write_text(path.read_text().replace("1.jpg", "../../1.jpg"))
    with pytest.raises(ValueError, match=r"names '../../1.jpg', which is outside the folder of the images"):
        read_ijb(folder)


def test_a_file_of_features_is_not_read_at_once(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((4, 5), np.float32))
    assert isinstance(read_array(tmp_path / "x.npy", 4, np.arange(4)), np.memmap)
    assert read_array(tmp_path / "x.npy", 4, np.array([1, 3])).shape == (2, 5)
