"""What reaches the network: images, augmentation, precision; and what of the data is left out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from facescale import load
from facescale.config import AugmentConfig, load_config
from facescale.data import open_reader
from facescale.data.loading.augment import Augment
from facescale.data.loading.train_loader import TrainLoader
from facescale.data.sampling.multiview import make_sampler
from facescale.run import RunDir
from tests.wiring.plain import Case, batches_of
from tests.wiring.toy import SETTINGS, SIZE, Toy, train_toy


@pytest.fixture
def seen() -> Iterator[list[Tensor]]:
    """Inputs of the network in training."""
    Toy.seen = []
    yield Toy.seen
    Toy.seen = None


@pytest.fixture
def passed() -> Iterator[list[Tensor]]:
    """Inputs of all networks, in training and evaluation."""
    Toy.passed = []
    yield Toy.passed
    Toy.passed = None


@pytest.fixture
def autocast() -> Iterator[list[bool]]:
    """Whether autocast was on in the network's passes, in training and evaluation."""
    Toy.autocast = []
    yield Toy.autocast
    Toy.autocast = None


def normalised(images_BHW3: Tensor) -> Tensor:
    return ((images_BHW3.float() - 127.5) / 127.5).permute(0, 3, 1, 2)


@pytest.mark.parametrize("flip", ["true", "false"])
def test_half_of_the_images_are_mirrored_if_the_config_says_so(
    flip: str, seen: list[Tensor], tmp_path: Path
) -> None:
    settings = ["train.seed=7", f"augment.flip={flip}"]
    train_toy(tmp_path, *settings)
    mirrored = 0
    batches = batches_of(load_config(None, [*SETTINGS, *settings]), Case(seed=7))
    for x, batch in zip(seen, batches, strict=False):
        for image, original in zip(x, normalised(batch.images[0]), strict=True):
            if not torch.allclose(image, original, atol=1e-6):
                torch.testing.assert_close(image, original.flip(-1), rtol=0, atol=1e-6)
                mirrored += 1
    assert len(seen) == 6
    assert (25 < mirrored < 71) if flip == "true" else mirrored == 0  # of 96


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shift", 3),
        ("scale", 0.3),
        ("rotate", 20.0),
        ("brightness", 0.5),
        ("contrast", 0.5),
        ("saturation", 0.5),
        ("grey", 0.5),
        ("low_resolution", 0.5),
        ("erase", 0.5),
    ],
)
def test_every_augmentation_of_the_config_reaches_the_images(
    name: str, value: float, seen: list[Tensor], tmp_path: Path
) -> None:
    settings = [f"augment.{name}={value}", "train.seed=5", "train.duration=1 steps", "eval.every=1 steps"]
    train_toy(tmp_path, *settings)
    batch = next(batches_of(load_config(None, SETTINGS), Case(seed=5)))
    augment = Augment(AugmentConfig.model_validate({"flip": False, name: value}))
    expected = augment(batch.images[0], batch.random[0])
    torch.testing.assert_close(seen[0], expected)
    assert not torch.allclose(expected, normalised(batch.images[0]), atol=1e-3)


def test_keys_that_show_the_query_again_are_augmented_more(
    seen: list[Tensor], make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """Identities of one image: AttFC's keys are the query itself, which the augmentation must change."""
    from facescale.data.loading.decode import encode_jpeg
    from tests.pictures import picture

    faces = make_folder({f"{who}/0.jpg": encode_jpeg(picture(who, SIZE)) for who in range(16)})
    keys: list[Tensor] = []
    train_toy(
        tmp_path,
        f"data.train={faces}",
        "head.name=attfc",
        "head.share=1.0",
        "train.duration=1 steps",
        "eval.every=1 steps",
        on_log=lambda line, plan: keys.append(torch.tensor(line.get("target_cosine", 0))),
    )
    (line,) = RunDir(tmp_path / "run").read_metrics("start")
    assert line["single_image_identities"] == 16
    # the twin is the backbone yet: equal images would have a cosine of 1, up to batch norm
    assert 0.2 < float(keys[1]) < 0.98


@pytest.mark.parametrize("head", ["attfc", "f2c"])
def test_queries_go_through_the_backbone_and_keys_through_the_twin(
    head: str, passed: list[Tensor], tmp_path: Path
) -> None:
    settings = [f"head.name={head}", "head.share=1.0", "train.seed=6", "train.duration=2 steps"]
    train_toy(tmp_path, *settings, "eval.every=2 steps")
    reader = open_reader(load_config(None, SETTINGS).data.train)
    asked = {"keys": 2} if head == "attfc" else {"keys": 2, "identity_pairs": True}
    sampler = make_sampler(reader.ids, 6, **asked)
    loader = TrainLoader(reader, sampler=sampler, batch_size=16, seed=6, size=SIZE, workers=0)
    for step, batch in zip(range(2), loader.epoch(0), strict=False):
        views = [normalised(images_BHW3) for images_BHW3 in batch.images]
        queries, keys = (views[:1], views[1:]) if head == "attfc" else (views, views)
        torch.testing.assert_close(passed[2 * step], torch.cat(queries))
        torch.testing.assert_close(passed[2 * step + 1], torch.cat(keys))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_networks_compute_in_the_precision_of_the_config(
    precision: str, autocast: list[bool], tmp_path: Path
) -> None:
    run = train_toy(tmp_path, f"train.precision={precision}", "head.name=attfc", "head.share=1.0").run
    assert len(autocast) > 2 * 6, "backbone and twin in each step, then the evaluation"
    assert set(autocast) == {precision == "bf16"}
    assert run.read_metrics("start")[0]["precision"] == precision


def test_images_of_another_size_are_scaled_if_the_config_says_so(tmp_path: Path) -> None:
    larger = "data.train=synthetic:ids=12,images=8,size=40"
    with pytest.raises(ValueError, match="40"):
        train_toy(tmp_path / "off", larger)
    done = train_toy(tmp_path / "on", larger, "data.resize=true")
    assert done.finished
    assert load(done.run.path, device="cpu").contract.resize == "area", "the rule travels with the weights"


def test_identities_with_few_images_are_left_out(make_folder: Callable[..., Path], tmp_path: Path) -> None:
    faces = make_folder()  # identities of 2, 3 and 1 images
    words = [f"data.train={faces}", "data.resize=true", "train.batch_size=2", "train.duration=1 epoch"]
    for least, num_ids, num_images in ((1, 3, 6), (2, 2, 5)):
        run = train_toy(tmp_path / str(least), *words, f"data.min_images={least}", "eval.every=1 epoch").run
        (line,) = run.read_metrics("start")
        assert (line["num_ids"], line["num_images"]) == (num_ids, num_images)


def test_edits_weights_and_sampling_of_the_config_reach_the_training(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    faces, edits = make_folder(), tmp_path / "edits.csv"  # identities of 2, 3 and 1 images
    edits.write_text("action,name,into\nmerge_identity,cy,ann\n")
    words = [f"data.train={faces}", "data.resize=true", "train.batch_size=2", "train.duration=1 epoch"]
    for name, settings, num_ids, steps in (
        ("edits", [f"data.edits={edits}"], 2, 3),
        ("weights", ["data.weights=[3.0]"], 3, 9),
        ("balanced", ["data.sampling=balanced"], 3, 3),
        ("pxk", ["data.sampling=pxk", "data.images_per_identity=2"], 3, 3),
    ):
        run = train_toy(tmp_path / name, *words, *settings, "eval.every=1 epoch").run
        (line,) = run.read_metrics("start")
        assert (line["num_ids"], line["total_steps"]) == (num_ids, steps), name


def test_margins_by_source_reach_the_head(tmp_path: Path) -> None:
    two = 'data.train=["synthetic:ids=6,images=8,size=32", "synthetic:ids=6,images=8,size=32,seed=1"]'
    losses = []
    for name, tables in (("same", "[{m=0.1}, {m=0.1}]"), ("other", "[{m=0.1}, {m=0.9}]")):
        run = train_toy(tmp_path / name, two, f"head.margin.by_source={tables}").run
        losses.append(run.read_metrics("train")[0]["loss"])
    assert losses[0] < losses[1]
    with pytest.raises(ValueError, match="by_source has 1 tables for 2 sources"):
        train_toy(tmp_path / "one", two, "head.margin.by_source=[{m=0.1}]")


def test_the_seed_decides_first_weights_centres_and_order(seen: list[Tensor], tmp_path: Path) -> None:
    firsts = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        seen.clear()
        run = train_toy(
            tmp_path / name, f"train.seed={seed}", "train.duration=1 steps", "eval.every=1 steps"
        ).run
        firsts.append((run.read_metrics("train")[0]["loss"], seen[0]))
    assert firsts[0][0] == firsts[1][0] and torch.equal(firsts[0][1], firsts[1][1])
    assert firsts[0][0] != firsts[2][0] and not torch.equal(firsts[0][1], firsts[2][1])


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("flip", [True, False])
def test_the_mirrored_view_is_added_in_evaluation_and_use_as_the_config_says(
    flip: bool, ema: float, tmp_path: Path
) -> None:
    run = train_toy(tmp_path, f"eval.flip={str(flip).lower()}", f"train.ema={ema}").run
    model = load(run.path, device="cpu")
    assert model.contract.flip is flip
    reader = open_reader(f"synthetic:ids=2,images=2,size={SIZE}")
    images = np.stack([reader[i][0] for i in range(4)])
    raw = model.embed_raw(images)
    if flip:
        raw = raw + model.embed_raw(images[:, :, ::-1])
    np.testing.assert_allclose(
        model.embed(images), raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6
    )
    # the same model by the same protocol, measured anew, has the accuracy that the training logged
    from facescale.evaluate.run_protocols import evaluate

    results, _ = evaluate(run.path, [], tmp_path / "r.html", False, 16, "cpu")
    (line,) = run.read_metrics("eval")
    assert line["unseen/accuracy"] == pytest.approx(results[0].accuracy.mean)
    assert line["unseen/auc"] == pytest.approx(results[0].curve.auc)
    assert line["unseen/mean_norm"] == pytest.approx(results[0].mean_norm, rel=1e-5)


def test_unreadable_images_are_replaced_by_different_ones(make_reader: Callable[..., Any]) -> None:
    bad = frozenset(range(0, 40, 4))
    reader = make_reader([i % 8 for i in range(40)], bad=bad)
    loader = TrainLoader(reader, batch_size=40, seed=0, size=24, workers=0, max_bad_share=1.0)
    replaced = []
    for epoch in (0, 1):
        (batch,) = loader.epoch(epoch)
        index, count = np.unique(batch.index.numpy(), return_counts=True)
        assert not set(index.tolist()) & bad
        replaced.append(frozenset(index[count > 1].tolist()))
        assert count.sum() == 40 and len(replaced[-1]) > 5, "ten items have been drawn apart from each other"
    assert replaced[0] != replaced[1]


def test_too_many_unreadable_images_stop_the_training_and_are_named(
    make_folder: Callable[..., Path], tmp_path: Path
) -> None:
    from facescale.data.loading.decode import encode_jpeg
    from tests.pictures import picture

    files = {f"{who}/{n}.jpg": encode_jpeg(picture(10 * who + n, SIZE)) for who in range(4) for n in range(8)}
    files["0/3.jpg"] = b"no picture"
    faces = make_folder(files)
    settings = [f"data.train={faces}", "train.duration=2 epochs"]
    with pytest.raises(ValueError, match="unreadable"):
        train_toy(tmp_path / "strict", *settings, "data.max_bad_share=0")
    run = train_toy(tmp_path / "mild", *settings, "data.max_bad_share=0.5").run
    (named,) = run.bad_records.read_text().splitlines()
    assert "3.jpg" in named
