"""A pair protocol, from its spec to its figures."""

import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from facescale.data.images import IndexedImages
from facescale.evaluate import EVALS
from facescale.evaluate.embedding import decoded_batches, embed_images
from facescale.evaluate.fold_rules import PAIR_RULES
from facescale.evaluate.protocols.open import open_protocol
from facescale.evaluate.protocols.pairs import Pairs, stratified_folds
from facescale.evaluate.verification import Verification

SIZE = 16
RNG = np.random.default_rng(0)


def toy_pairs(num_pairs: int = 400, noise: float = 60.0) -> Pairs:
    """Noisy pictures of 40 people, as pixels; pair i shows person i and itself, or the next one."""
    faces = RNG.uniform(0, 255, (40, SIZE, SIZE, 3))
    person = np.stack([np.arange(num_pairs), np.arange(num_pairs) + np.arange(num_pairs) % 2], axis=1) % 40
    pictures = (faces[person.ravel()] + RNG.normal(0, noise, (2 * num_pairs, SIZE, SIZE, 3))).clip(0, 255)
    images = IndexedImages(list(pictures.astype(np.uint8)), [f"image {i}" for i in range(2 * num_pairs)])
    is_same = np.arange(num_pairs) % 2 == 0
    index = np.arange(2 * num_pairs)
    return Pairs("toy", images, index[0::2], index[1::2], is_same, stratified_folds(is_same))


def pixels_as_embedding(images_BHW3: torch.Tensor) -> torch.Tensor:
    return (images_BHW3.flatten(1).float() - 127.5) / 127.5


def test_a_network_that_sees_scores_well_and_says_so_in_figures() -> None:
    figures = dict(Verification("toy", toy_pairs(), size=SIZE, flip=False).run(pixels_as_embedding))
    assert figures["accuracy"] > 0.97
    assert figures["eer"] < 0.03
    assert figures["auc"] > 0.99
    assert figures["tar@far=0.1"] > 0.97
    assert 0 < figures["threshold@far=0.1"] < 1
    json.dumps(figures, allow_nan=False)


def test_a_blind_network_scores_half() -> None:
    def blind(images_BHW3: torch.Tensor) -> torch.Tensor:
        return torch.ones(len(images_BHW3), 8)

    result = Verification("toy", toy_pairs(), size=SIZE).measure(blind)
    assert (result.accuracy.mean, result.curve.auc, result.curve.eer) == (0.5, 0.5, 0.5)
    json.dumps(result.to_dict(), allow_nan=False)


def test_rates_without_enough_impostors_are_said_not_shown() -> None:
    result = Verification("toy", toy_pairs(), size=SIZE).measure(pixels_as_embedding)
    assert "tar@far=0.01" not in dict(result.figures())
    assert result.notes()[0] == (
        "toy: FAR 0.01 needs 1,000 impostor pairs; the set has 200, which support rates down to 0.05"
    )
    points = {point["far"]: point for point in result.to_dict()["operating_points"]}
    assert [points[far]["supported"] for far in (0.1, 0.01, 0.001, 0.0001)] == [True, False, False, False]
    assert points[0.1]["threshold_low"] <= points[0.1]["threshold"] <= points[0.1]["threshold_high"]


@pytest.mark.parametrize("rule", PAIR_RULES)
def test_a_rule_is_chosen_by_name_and_shown(rule: str) -> None:
    protocol = open_protocol(f"synthetic:pairs=40,folds=2?rule={rule}", 32)
    result = protocol.measure(pixels_as_embedding)
    accuracy = result.to_dict()["accuracy"]
    assert result.to_dict()["rule"] == rule and accuracy["rule_meaning"] == PAIR_RULES[rule].meaning
    shown = [note for note in result.notes() if f"accuracy by rule {rule}: " in note]
    is_default = rule == "insightface"
    assert bool(shown) != is_default and (f"accuracy (rule {rule})" in result.summary()) != is_default
    assert accuracy["std"] == dict(result.figures())["accuracy_std"] == result.deviation
    folds = np.array(accuracy["folds"])
    expected = {"insightface": folds.std(), "facex": folds.std(ddof=1) / 2**0.5}
    assert result.deviation == pytest.approx(expected.get(rule, folds.std() / 2**0.5))


def test_result_does_not_depend_on_the_batch_size() -> None:
    pairs = toy_pairs(60)
    scores = [
        Verification("x", pairs, SIZE, batch_size=n).measure(pixels_as_embedding).scores for n in (1, 7, 500)
    ]
    assert (scores[0] == scores[1]).all() and (scores[1] == scores[2]).all()


def test_each_image_is_embedded_once_however_many_pairs_it_is_in() -> None:
    images = IndexedImages(list(RNG.integers(0, 255, (5, SIZE, SIZE, 3), np.uint8)), list("abcde"))
    a, b = np.array([0, 0, 0, 1]), np.array([1, 2, 3, 0])  # image 4 is in no pair
    same = np.array([True, False, True, False])
    seen: Counter[bytes] = Counter()

    def counting(images_BHW3: torch.Tensor) -> torch.Tensor:
        seen.update(image.numpy().tobytes() for image in images_BHW3)
        return pixels_as_embedding(images_BHW3)

    pairs = Pairs("x", images, a, b, same, stratified_folds(same))
    result = Verification("x", pairs, SIZE, flip=False, batch_size=2).measure(counting)
    assert seen == Counter({images[i].tobytes(): 1 for i in range(4)})
    assert result.num_images == 4
    assert result.scores[0] == pytest.approx(result.scores[3])


def test_flip_adds_raw_views_then_normalises() -> None:
    batch = RNG.integers(0, 255, (3, 4, 4, 3), np.uint8)
    raw = [pixels_as_embedding(torch.from_numpy(x.copy())).numpy() for x in (batch, batch[:, :, ::-1])]
    embedded = embed_images(pixels_as_embedding, [batch])
    fused = (raw[0] + raw[1]) / np.linalg.norm(raw[0] + raw[1], axis=1, keepdims=True)
    np.testing.assert_allclose(embedded.unit_ND, fused, rtol=1e-6)
    norms = [np.linalg.norm(view, axis=1) for view in raw]
    np.testing.assert_allclose(embedded.norm_N, (norms[0] + norms[1]) / 2, rtol=1e-6)
    one_view = embed_images(pixels_as_embedding, [batch], flip=False)
    np.testing.assert_allclose(one_view.unit_ND, raw[0] / norms[0][:, None], rtol=1e-6)


def test_a_network_left_in_training_mode_is_found_out() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 8), torch.nn.BatchNorm1d(8))
    batch = RNG.integers(0, 255, (32, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match=r"changes with the batch it is in .*call eval\(\)"):
        embed_images(lambda x: net(x.float()), [batch])
    embed_images(lambda x: net.eval()(x.float()), [batch])


def test_embeddings_that_are_not_finite_are_counted() -> None:
    with pytest.raises(ValueError, match="2 of 2 embeddings contain NaN"):
        embed_images(lambda x: torch.full((len(x), 4), torch.nan), [np.zeros((2, 4, 4, 3), np.uint8)])


def test_no_image_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no images to embed"):
        embed_images(pixels_as_embedding, [])


def test_images_are_decoded_in_order_and_resized() -> None:
    pictures = [np.full((size, size, 3), shade, np.uint8) for shade, size in enumerate((8, 16, 32, 16, 16))]
    batches = list(decoded_batches(IndexedImages(pictures, list("abcde")), [4, 3, 2, 1, 0], 16, batch_size=2))
    assert [batch.shape for batch in batches] == [(2, 16, 16, 3), (2, 16, 16, 3), (1, 16, 16, 3)]
    assert [int(image.max()) for batch in batches for image in batch] == [4, 3, 2, 1, 0]


def test_a_bad_image_is_named() -> None:
    with pytest.raises(ValueError, match=r"image 'b' of the protocol cannot be read: .*replace the image"):
        list(decoded_batches(IndexedImages([b"not an image"], ["b"]), [0], 16, 1))


def test_every_listed_evaluator_opens_a_protocol() -> None:
    pairs = ["verification", "lfw", "calfw", "cplfw", "sllfw", "agedb", "cfp_ff", "cfp_fp", "ytf"]
    assert list(EVALS) == [*pairs, "identification", "all_pairs", "ijb", "megaface", "tinyface"]
    for kind in ("identification", "all_pairs"):
        assert EVALS[kind]("synthetic:ids=4,images=2", name="x").name == "x"
    with pytest.raises(ValueError, match="name the folder of IJB-B or IJB-C"):
        EVALS["ijb"]("nowhere")
    assert isinstance(EVALS["verification"]("synthetic:pairs=40,folds=2"), Verification)


def test_protocols_are_opened_by_what_they_are(tmp_path: Path) -> None:
    for i in (1, 2):
        (tmp_path / f"lfw/p{i}").mkdir(parents=True)
        for j in (1, 2):
            Image.new("RGB", (8, 8)).save(tmp_path / f"lfw/p{i}/p{i}_000{j}.png")
    (tmp_path / "lfw/pairs.txt").write_text("p1 1 2\np2 1 2\np1 1 p2 1\np1 2 p2 2\n")
    rows = "p1/p1_0001.png,p1/p1_0002.png,1\np1/p1_0001.png,p2/p2_0001.png,0\n"
    (tmp_path / "list.csv").write_text("a,b,same\n" + rows + rows)
    (tmp_path / "agedb.bin").write_bytes(pickle.dumps(([b"x"] * 40, [True, False] * 10)))
    assert open_protocol(str(tmp_path / "lfw")).name == "lfw"
    assert open_protocol(f"{tmp_path}/lfw/pairs.txt").name == "pairs"
    assert open_protocol(f"{tmp_path}/list.csv?root={tmp_path}/lfw").name == "list"
    assert open_protocol(f"{tmp_path}/agedb.bin", name="age-30").name == "age-30"
    assert open_protocol("synthetic:pairs=40,folds=2", size=64).pairs.images[0].shape == (64, 64, 3)
    assert len(open_protocol("synthetic:pairs=60,seed=3,nuisance=0.5").pairs) == 60


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.csv", "'nowhere.csv' does not exist; name a folder with pairs.txt"),
        ("lfw=nowhere", "'lfw=nowhere' does not exist"),
        ("{tmp}", r"has no pairs.txt, .*; sample pairs .*'facescale pairs"),
        ("{tmp}/x.json", r"'.*x.json' is not a pair protocol; give a .txt"),
        ("{tmp}/x.json?root=y", r"'.*x.json' with \?root=y is not a pair protocol; give a .txt"),
        (
            "{tmp}/x.json?roots=y",
            r"has no option 'roots' \(did you mean 'root'\?\); after '\?' may stand: root=",
        ),
        (
            "{tmp}/x.json?rule=fft",
            r"rule=fft is not known \(did you mean 'ffc'\?\); choose one of: insightface",
        ),
        ("synthetic:pair=9", r"has no key 'pair' \(did you mean 'pairs'\?\); the keys are: pairs, seed"),
        ("synthetic:pairs=many", "'pairs' of 'synthetic:pairs=many' is 'many'; it must be a whole number"),
        ("synthetic:pairs=7", "7 pairs do not make 10"),
    ],
)
def test_what_is_no_protocol_is_answered_in_a_sentence(tmp_path: Path, spec: str, message: str) -> None:
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match=message):
        open_protocol(spec.format(tmp=tmp_path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.array([0, 1, 2])}, r"differ in length: \[3, 4\]"),
        ({"b": np.array([0, 1, 2, 9])}, "pairs refer to images 0 to 9, but there are 4"),
        ({"is_same": np.ones(4, bool)}, "4 of 4 pairs are genuine"),
        ({"fold": np.zeros(4, np.int64)}, "all pairs are in one fold"),
    ],
)
def test_columns_that_do_not_fit_are_answered_in_a_sentence(change: dict, message: str) -> None:
    columns = {"a": np.arange(4), "b": np.arange(4), "is_same": np.arange(4) < 2, "fold": np.arange(4) % 2}
    with pytest.raises(ValueError, match=message):
        Pairs("x", IndexedImages([b""] * 4, list("abcd")), **{**columns, **change})


def test_synthetic_faces_are_painted_once_for_all_evaluations(monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = open_protocol("synthetic:pairs=40,folds=2", size=32)
    first = protocol.measure(pixels_as_embedding)
    monkeypatch.setattr("facescale.data.synthetic.faces.SyntheticFaces.__getitem__", None)
    assert (protocol.measure(pixels_as_embedding).scores == first.scores).all()


def test_pictures_that_were_scaled_are_said() -> None:
    pictures = [np.full((side, 20, 3), shade, np.uint8) for shade, side in enumerate((16, 16, 20, 16))]
    same = np.array([True, False, True, False])
    pairs = Pairs(
        "x",
        IndexedImages(pictures, list("abcd")),
        np.arange(4),
        np.array([1, 2, 3, 0]),
        same,
        np.arange(4) // 2,
    )
    result = Verification("x", pairs, SIZE).measure(lambda x: pixels_as_embedding(x) + 0.1)
    assert result.scaled == {"20x16": 3, "20x20": 1}
    assert result.notes()[0] == (
        "x: 3 images are 20x16 and were scaled to 16x16; unless the training scaled its images too "
        "(data.resize), the network wants faces aligned to that size"
    )
    assert result.to_dict()["notes"] == result.notes()


def test_folds_of_one_kind_are_said() -> None:
    pairs = toy_pairs(40)
    order = np.argsort(~pairs.is_same, kind="stable")
    columns = (pairs.a[order], pairs.b[order], pairs.is_same[order], np.arange(40) // 10)
    result = Verification("toy", Pairs("x", pairs.images, *columns), SIZE).measure(pixels_as_embedding)
    assert result.notes()[0] == (
        "toy: 4 of 4 folds hold genuine or impostor pairs only, so VAL rests on the others; "
        "mix the pairs before they are cut into folds"
    )
    assert not any(
        "folds" in note for note in Verification("toy", pairs, SIZE).measure(pixels_as_embedding).notes()
    )


@pytest.mark.parametrize("name", ["C++ faces", "synthetic:pairs=20", "50%25", "a&b", "x?root=y"])
def test_a_path_that_exists_is_not_taken_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    for i in range(4):
        Image.new("RGB", (8, 8)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "list.csv").write_text("a,b,same\n" + "0.png,1.png,1\n2.png,3.png,0\n" * 2)
    assert open_protocol(f"list.csv?root={name}").pairs.images.key(0) == "0.png"
    (tmp_path / "list.csv").rename(tmp_path / name / "list.csv")
    assert open_protocol(f"{name}/list.csv").name == "list"
    with pytest.raises(ValueError, match=r"has no pairs\.txt"):
        open_protocol(name)
