"""Protocols in the layouts that they are released in: CALFW, CPLFW, SLLFW, AgeDB, CFP, YTF, TinyFace."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from facescale.data.loading.decode import encode_jpeg
from facescale.evaluate.protocols.cfp import read_cfp
from facescale.evaluate.protocols.open import KINDS, open_protocol
from facescale.evaluate.protocols.text_lists import read_txt
from facescale.evaluate.protocols.tinyface import read_tinyface
from facescale.evaluate.protocols.ytf import read_ytf
from facescale.run import RunDir
from tests.evaluate.protocols.test_ijb_lists import small, write_lists
from tests.evaluate.protocols.test_megaface import write_images, write_release

SIZE = 16


def pixels(images: torch.Tensor) -> torch.Tensor:
    return images.flatten(1).float() - 127


def write_face(path: Path, person: int, image: int = 0) -> None:
    """A noisy picture of a person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    face = np.random.default_rng(person).uniform(60, 200, (SIZE, SIZE, 3))
    noise = np.random.default_rng([person, image]).normal(0, 10, face.shape)
    path.write_bytes(encode_jpeg((face + noise).clip(0, 255).astype(np.uint8), 98))


def write_calfw(folder: Path, kind: str = "CALFW") -> Path:
    for person in range(8):
        for image in (1, 2):
            write_face(folder / "aligned images" / f"P{person}_{image:04d}.jpg", person, image)
    genuine = [f"P{p}_0001.jpg {p + 1}\nP{p}_0002.jpg {p + 1}\n" for p in range(8)]
    impostor = [f"P{p}_0001.jpg 0\nP{(p + 1) % 8}_0002.jpg 0\n" for p in range(8)]
    (folder / f"pairs_{kind}.txt").write_text("".join(genuine + impostor))
    return folder


def write_sllfw(folder: Path) -> Path:
    for person in range(8):
        for image in (1, 2):
            write_face(folder / f"P{person}/P{person}_{image:04d}.png", person, image)
    pairs = [((p, 1), (p, 2)) if same else ((p, 1), ((p + 1) % 8, 2)) for p in range(8) for same in (1, 0)]
    names = [f"P{p}/P{p}_{i:04d}.jpg\n" for pair in pairs for p, i in pair]  # the files are .png
    (folder / "pair_SLLFW.txt").write_text("".join(names))
    return folder


def write_lfw(folder: Path) -> Path:
    write_sllfw(folder)
    (folder / "pair_SLLFW.txt").unlink()
    genuine = "".join(f"P{p}\t1\t2\n" for p in range(4))
    impostor = "".join(f"P{p}\t1\tP{p + 1}\t2\n" for p in range(4))
    (folder / "pairs.txt").write_text(f"2\t4\n{genuine}{impostor}{genuine}{impostor}")
    return folder


def write_agedb(folder: Path) -> Path:
    for person in range(8):
        for image in (1, 2):
            write_face(
                folder / "images" / f"{2 * person + image}_P{person}_{20 + image}_m.jpg", person, image
            )
    lines = [f"{2 * p + 1}_P{p}_21_m.jpg {2 * p + 2}_P{p}_22_m.jpg 1\n" for p in range(8)]
    lines += [f"{2 * p + 1}_P{p}_21_m.jpg {2 * p + 2}_P{p}_22_m.jpg 1\n".replace(
        f"{2 * p + 2}_P{p}_22", f"{2 * ((p + 1) % 8) + 2}_P{(p + 1) % 8}_22").replace(" 1\n", " -1\n")
        for p in range(8)]  # fmt: skip
    (folder / "agedb_30.txt").write_text("".join(lines))
    return folder


def write_cfp(folder: Path, images: Path | None = None) -> Path:
    images = images or folder / "Data/Images"
    frontal, profile = [], []
    for person in range(1, 5):
        for part, names in (("frontal", frontal), ("profile", profile)):
            for image in (1, 2):
                write_face(images / f"{person:03d}/{part}/{image:02d}.jpg", person, image + 5 * len(part))
                names.append(f"../Data/Images/{person:03d}/{part}/{image:02d}.jpg")
    protocol = folder / "Protocol"
    for split in ("FF", "FP"):
        for fold in (1, 2):
            place = protocol / "Split" / split / f"{fold:02d}"
            place.mkdir(parents=True)
            people = (2 * fold - 2, 2 * fold - 1)
            (place / "same.txt").write_text("".join(f"{2 * p + 1},{2 * p + 2}\n" for p in people))
            (place / "diff.txt").write_text("".join(f"{2 * p + 1},{2 * ((p + 1) % 4) + 2}\n" for p in people))
    for letter, names in (("F", frontal), ("P", profile)):
        rows = [f"{k} {name}\n" for k, name in enumerate(names, start=1)]
        (protocol / f"Pair_list_{letter}.txt").write_text("".join(rows))
    return folder


def write_ytf(folder: Path) -> Path:
    for person in range(4):
        for video in (0, 1):
            for frame in range(1 + person):
                write_face(
                    folder / f"aligned_images_DB/P{person}/{video}/a.{frame}.jpg", person, 9 * video + frame
                )
    lines = ["split number, first name, second name, is same"]
    for split in (1, 2):
        a, b = 2 * split - 2, 2 * split - 1
        lines += [f"{split}, P{a}/0, P{a}/1, 1", f"{split}, P{a}/0, P{b}/1, 0"]
        lines += [f"{split}, P{b}/0, P{b}/1, 1", f"{split}, P{b}/0, P{a}/1, 0"]
    (folder / "splits.txt").write_text("\r\n".join(lines))
    return folder


def write_tinyface(folder: Path) -> Path:
    test = folder / "Testing_Set"
    for person in range(1, 4):
        write_face(test / f"Probe/{person}_1.jpg", person, 1)
        write_face(test / f"Probe/{person}_2.jpg", person, 2)
        write_face(test / f"Gallery_Match/{person}_3.jpg", person, 3)
    for k in range(5):
        write_face(test / f"Gallery_Distractor/12_34_{k}/12_34_{k}_a.jpg", 50 + k)
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {
    "lfw": write_lfw,
    "calfw": write_calfw,
    "cplfw": lambda folder: write_calfw(folder, "CPLFW"),
    "sllfw": write_sllfw,
    "agedb": write_agedb,
    "cfp_ff": write_cfp,
    "cfp_fp": write_cfp,
    "ytf": write_ytf,
    "tinyface": write_tinyface,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_release_is_read_measured_and_limited(kind: str, tmp_path: Path) -> None:
    folder = WRITERS[kind](tmp_path / "release")
    result = open_protocol(f"{kind}:{folder}", SIZE, flip=False).measure(pixels)
    values = dict(result.figures())
    assert values.get("auc", values.get("rank1")) == 1.0
    assert result.name == kind
    part = open_protocol(f"{kind}:{folder}", SIZE, flip=False, limit=4 if kind != "tinyface" else 6)
    assert any("limited to" in note for note in part.measure(pixels).notes())
    assert KINDS[kind](str(folder), SIZE, name="mine").name == "mine"


def test_calfw_folds_mix_the_genuine_and_the_impostor_half(tmp_path: Path) -> None:
    pairs = open_protocol(f"calfw:{write_calfw(tmp_path)}").pairs
    assert pairs.is_same.tolist() == [True] * 8 + [False] * 8
    assert pairs.fold.tolist() == list(range(8)) * 2
    assert pairs.images.key(0) == "P0_0001.jpg"


def test_lists_are_told_apart_in_a_plain_folder_too(tmp_path: Path) -> None:
    assert len(open_protocol(str(write_calfw(tmp_path / "a"))).pairs) == 16
    assert len(open_protocol(str(write_sllfw(tmp_path / "b"))).pairs) == 16
    (tmp_path / "b/pairs_CPLFW.txt").write_text("")
    with pytest.raises(ValueError, match=r"several lists of pairs \(pairs_CPLFW.txt, pair_SLLFW.txt\)"):
        open_protocol(str(tmp_path / "b"))


def test_cfp_pairs_are_frontal_and_profile_by_number(tmp_path: Path) -> None:
    folder = write_cfp(tmp_path / "cfp")
    pairs = read_cfp(folder, "FP")
    first = [pairs.images.key(int(index[0])) for index in (pairs.a, pairs.b)]
    assert first == ["001/frontal/01.jpg", "001/profile/02.jpg"]
    assert pairs.fold.tolist() == [0] * 4 + [1] * 4
    assert pairs.is_same.tolist() == [True, True, False, False] * 2
    assert read_cfp(folder, "FF").images.key(1) == "001/frontal/02.jpg"


def test_aligned_copies_of_cfp_may_lie_elsewhere_with_another_suffix(tmp_path: Path) -> None:
    folder = write_cfp(tmp_path / "cfp", tmp_path / "aligned")
    for path in list((tmp_path / "aligned").rglob("*.jpg")):
        path.rename(path.with_suffix(".JPEG"))
    with pytest.raises(ValueError, match="images are not in"):
        open_protocol(f"cfp_fp:{folder}")
    assert len(open_protocol(f"cfp_fp:{folder}?root={tmp_path}/aligned&rule=facex").pairs) == 8


def test_a_video_is_the_mean_of_its_frames(tmp_path: Path) -> None:
    protocol = open_protocol(f"ytf:{write_ytf(tmp_path)}?rule=ffc_video", SIZE, flip=False)
    seen: list[np.ndarray] = []

    def embed(images: torch.Tensor) -> torch.Tensor:
        x = pixels(images)
        seen.extend((x / x.norm(dim=1, keepdim=True)).numpy())
        return x

    result = protocol.measure(embed)
    assert result.rule == "ffc_video" and result.num_images == 2 * (1 + 2 + 3 + 4)
    first = protocol.videos.first
    frames = {key: row for row, key in enumerate(protocol.videos.frames.key(i) for i in range(first[-1]))}
    rows = np.array(
        seen[: first[-1]], np.float64
    )  # the first two images are embedded twice, at the end of a batch
    means = [
        np.mean([row for key, row in zip(frames, rows, strict=True) if key.startswith(video)], axis=0)
        for video in ("P1/0/", "P1/1/")
    ]
    a, b = (mean / np.linalg.norm(mean) for mean in means)
    pair = next(
        i
        for i in range(len(result.scores))
        if [
            protocol.videos.pairs.images.key(int(s[i])).split("/a.")[0]
            for s in (result.pairs.a, result.pairs.b)
        ]
        == ["P1/0", "P1/1"]
    )
    assert result.scores[pair] == pytest.approx(a @ b, abs=1e-5)
    assert "ytf: 20 frames of 8 videos; a video is the mean of its frames" in result.notes()


def test_tinyface_ranks_probes_among_distractors(tmp_path: Path) -> None:
    images = read_tinyface(write_tinyface(tmp_path))
    assert images.ids.tolist() == [1, 1, 2, 2, 3, 3, 1, 2, 3, -1, -1, -1, -1, -1]
    result = open_protocol(f"tinyface:{tmp_path}", SIZE).measure(pixels)
    assert result.counts == {
        "probes with a mate": 6,
        "probes without one": 0,
        "gallery images": 8,
        "distractors": 5,
    }
    assert all(low <= result.values[k] <= high for k, (low, high) in result.intervals.items())
    assert result.intervals.keys() == {"rank1", "rank5", "rank20"}
    part = images.limited(6)
    assert part.ids.tolist() == [1, 1, 2, 2, 1, 2, -1, -1, -1, -1, -1]
    assert len(part.remarks) == 1 and "limited to 6 of 9 probe and match images" in part.remarks[0]


def write_ijb(folder: Path) -> Path:
    """Six subjects of three templates with an image each; images lie as the template has them."""
    pairs = [(3 * a + 1, 3 * b + 2) for a in range(6) for b in range(6)]
    enrolled = {
        "gallery_G1": [(3 * s + 1, s) for s in range(3)],
        "gallery_G2": [(3 * s + 1, s) for s in (3, 4)],
    }
    probes = [(3 * s + k, s) for s in range(6) for k in (2, 3)]
    lists = small(
        templates=range(1, 19),
        medias=range(1, 19),
        scores=np.ones(18),
        pairs=pairs,
        same=[(a - 1) // 3 == (b - 1) // 3 for a, b in pairs],
        people={**enrolled, "probe_mixed": probes},
    )
    for number in range(18):
        write_face(folder / "loose_crop" / f"{number + 1}.jpg", number // 3, number)
    return write_lists(folder, "ijbc", lists)


def write_megaface(folder: Path) -> Path:
    write_release(folder)
    write_images(folder)
    return folder


OF_A_TRAINING: dict[str, str] = {
    "verification": "accuracy",
    **dict.fromkeys(("lfw", "calfw", "cplfw", "sllfw", "agedb", "cfp_ff", "cfp_fp", "ytf"), "accuracy"),
    **dict.fromkeys(("identification", "ijb", "megaface", "tinyface"), "rank1"),
    "all_pairs": "tar@far=0.01",
}
SPECS = {
    "verification": "verification:synthetic:pairs=8,folds=2",
    "identification": "identification:synthetic:ids=8,images=3,size=56",
    "all_pairs": "all_pairs:synthetic:ids=24,images=3,size=56",
}


def test_a_protocol_of_every_kind_is_measured_in_a_training_and_chooses_its_checkpoint(
    facescale: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    """`eval.sets` takes each kind of `KINDS`, `eval.limit` a part of it, `checkpoint.best_by` its figures."""
    assert KINDS.keys() == OF_A_TRAINING.keys()
    writers = {**WRITERS, "ijb": write_ijb, "megaface": write_megaface}
    specs = SPECS | {kind: f"{kind}:{write(tmp_path / kind)}" for kind, write in writers.items()}
    words = [f"eval.sets.{kind}={spec}" for kind, spec in specs.items()]
    words += ["data.train=synthetic:ids=6,images=4,size=56", "backbone.name=mbf_s"]
    words += ["backbone.embedding_size=16", "backbone.input_size=56", "train.batch_size=4"]
    words += ["train.duration=1 steps", "eval.every=1 steps", "eval.limit=64"]
    words += ["eval.batch_size=16", "eval.flip=false"]
    options = [word for text in words for word in ("--set", text)]
    code, out, err = facescale("train", "--run", str(tmp_path / "run"), "--device", "cpu", *options)
    assert code == 0, err
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    figures = next(line for line in lines if line["kind"] == "eval")
    assert {f"{kind}/{figure}" for kind, figure in OF_A_TRAINING.items()} <= figures.keys()
    assert "  megaface: rank1 " in out and "all_pairs: tar@far=0.01 " in out
    (record,) = (tmp_path / "run/results").glob("*all_pairs*")
    assert "limited to 63 of 72 images" in record.read_text()
    for kind, figure in OF_A_TRAINING.items():
        (tmp_path / "run/checkpoints/best.json").unlink()
        RunDir(tmp_path / "run").keep_best(1, figures, f"{kind}/{figure}")
        assert json.loads((tmp_path / "run/checkpoints/best.json").read_text())["name"] == f"{kind}/{figure}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a.jpg 1\nb.jpg 1\nc.jpg 1\n", "3 lines, where every two lines are a pair"),
        ("a.jpg 1\nb.jpg 0\n", "pair 1 is of another form than the first, or its two lines have two labels"),
        ("a.jpg 1\nb.jpg 1\nc.jpg\nd.jpg 0\n", "pair 2 is of another form"),
        ("a.jpg b.jpg 1\na.jpg c.jpg x\n", "pair 2 is of another form"),
        ("a/a.jpg\na/b.jpg\n", "no image 'a/a' of any suffix in .*nor in its folders images, lfw"),
        ("hello\n", "the first line is 'hello', not numbers such as '10 300'"),
    ],
)
def test_damaged_lists_are_one_sentence(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_txt(tmp_path / "list.txt")


def change(path: str, content: str | None) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / path).unlink() if content is None else (folder / path).write_text(content)

    return damage


@pytest.mark.parametrize(
    ("write", "read", "damage", "message"),
    [
        (
            write_cfp,
            lambda f: read_cfp(f, "FP"),
            change("Protocol/Pair_list_P.txt", None),
            "cannot read the pair",
        ),
        (write_cfp, lambda f: read_cfp(f / "x", "FP"), lambda f: None, "cannot read the pair list"),
        (
            write_cfp,
            lambda f: read_cfp(f, "FP"),
            change("Protocol/Pair_list_F.txt", "1 x.jpg\n"),
            "a line is not of the form '1 ../Data/Images/001/frontal/01.jpg'",
        ),
        (
            write_cfp,
            lambda f: read_cfp(f, "FF"),
            change("Protocol/Split/FF/01/same.txt", "1,99\n"),
            "'1,99' is not a pair of numbers of the image lists",
        ),
        (write_cfp, lambda f: read_cfp(f, "XX"), lambda f: None, "has no folder Split/XX/01"),
        (
            write_ytf,
            read_ytf,
            change("splits.txt", "1, a/0, b/0\n"),
            "its lines must be 'SPLIT, PERSON/VIDEO",
        ),
        (write_ytf, read_ytf, change("splits.txt", "1, a/0, b/0, 1\n"), "the video 'a/0' has no pictures in"),
        (
            write_ytf,
            read_ytf,
            change("splits.txt", "1, ../x, /b, 1\n"),
            "the video '../x' has no pictures in",
        ),
        (
            write_tinyface,
            lambda f: read_tinyface(f / "Testing_Set/Probe"),
            lambda f: None,
            "has no pictures in Probe",
        ),
        (
            write_tinyface,
            read_tinyface,
            lambda f: write_face(f / "Testing_Set/Probe/x_1.jpg", 1),
            "x_1.jpg' does not begin with its identity, as '12_3.jpg' does",
        ),
        (
            write_tinyface,
            lambda f: read_tinyface(f).limited(2),
            lambda f: None,
            "less than the 3 of the first",
        ),
    ],
)
def test_damaged_releases_are_one_sentence(
    tmp_path: Path, write: Callable, read: Callable, damage: Callable, message: str
) -> None:
    folder = write(tmp_path / "release")
    damage(folder)
    with pytest.raises(ValueError, match=message):
        read(folder)
