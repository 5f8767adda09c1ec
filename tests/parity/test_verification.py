"""Verification figures equal those of the reference implementations (golden G, real LFW embeddings)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from facescale.data.images import IndexedImages
from facescale.evaluate.fold_rules import contiguous_folds, num_accepted
from facescale.evaluate.histogram import histogram_roc, most_accurate_threshold
from facescale.evaluate.metrics import PAIR_RULES, pair_accuracy
from facescale.evaluate.protocols.pair_lists import read_lfw
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.verification import Verification

Golden = tuple[dict[str, Any], Any]


@pytest.fixture(scope="module")
def section_g(golden: Path) -> Golden:
    return json.loads((golden / "G_verification.json").read_text()), np.load(golden / "G_verification.npz")


@pytest.mark.parametrize("name", ["easy", "medium", "hard", "uneven"])
def test_insightface_accuracy_thresholds_and_val_are_exact(section_g: Golden, name: str) -> None:
    expected, arrays = section_g[0][name], section_g[1]
    result = pair_accuracy(arrays[f"{name}/embeddings"], arrays[f"{name}/issame"])
    np.testing.assert_allclose(result.folds, expected["accuracy_per_fold"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.mean, expected["accuracy_mean"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.std, expected["accuracy_std"], rtol=0, atol=1e-12)
    assert result.thresholds.tolist() == expected["best_threshold_per_fold"]
    np.testing.assert_allclose(result.val, expected["val"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.val_std, expected["val_std"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.far, expected["far"], rtol=0, atol=1e-9)
    np.testing.assert_allclose(result.val_thresholds, expected["val_thresholds_per_fold"], rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["easy", "uneven"])
def test_mean_fold_curves_of_accepted_pairs_are_exact(section_g: Golden, name: str) -> None:
    arrays = section_g[1]
    x = arrays[f"{name}/embeddings"].astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    distance, is_same = np.square(x[0::2] - x[1::2]).sum(axis=1), arrays[f"{name}/issame"]
    fold = contiguous_folds(len(is_same), 10)
    for curve, kind in (("tpr_mean_curve", is_same), ("fpr_mean_curve", ~is_same)):
        per_fold = [num_accepted(distance[(fold == f) & kind], np.arange(0, 4, 0.01)) for f in range(10)]
        share = [accepted / ((fold == f) & kind).sum() for f, accepted in enumerate(per_fold)]
        np.testing.assert_allclose(np.mean(share, axis=0), arrays[f"{name}/{curve}"], rtol=0, atol=1e-12)


def test_accuracy_after_pca_is_within_one_pair_in_each_fold(section_g: Golden) -> None:
    expected, arrays = section_g[0]["easy_pca24"], section_g[1]
    result = pair_accuracy(arrays["easy/embeddings"], arrays["easy/issame"], pca=24)
    np.testing.assert_allclose(result.folds, expected["accuracy_per_fold"], rtol=0, atol=1.001 / 120)


@pytest.mark.parametrize(("name", "rule"), [("ffc_lfw", "ffc"), ("ffc_cfp", "ffc"), ("ffc_ytf", "ffc_video")])
def test_f2c_fold_accuracy_and_thresholds_agree(section_g: Golden, name: str, rule: str) -> None:
    expected, arrays = section_g[0][name], section_g[1]
    score, is_same = arrays[f"{name}/score"], arrays[f"{name}/label"] == 1
    result = PAIR_RULES[rule].folds(
        np.broadcast_to(score, (10, len(score))), is_same, contiguous_folds(len(score), 10)
    )
    # The reference keeps its accuracies in float32.
    np.testing.assert_allclose(result.folds, expected["accuracy_per_fold"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.mean, expected["accuracy_mean"], rtol=0, atol=1e-7)
    np.testing.assert_allclose(result.thresholds, expected["threshold_per_fold"], rtol=0, atol=1e-6)
    if "accuracy_std_over_sqrt10" in expected:
        np.testing.assert_allclose(
            result.standard_error, expected["accuracy_std_over_sqrt10"], rtol=0, atol=1e-7
        )


@pytest.mark.parametrize("name", ["ffc_lfw", "ffc_cfp"])
def test_f2c_histogram_roc_and_its_readings_agree(section_g: Golden, name: str) -> None:
    expected, arrays = section_g[0][name], section_g[1]
    score, is_same = arrays[f"{name}/score"], arrays[f"{name}/label"] == 1
    curve = histogram_roc(score, is_same)
    np.testing.assert_allclose(curve.far, arrays[f"{name}/far"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(curve.tar, arrays[f"{name}/vr"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(curve.thresholds, arrays[f"{name}/threshold"], rtol=0, atol=1e-6)
    for far, tar in expected["find_score"].items():
        np.testing.assert_allclose(curve.tar_at(float(far))[0], tar, rtol=0, atol=1e-12)
    threshold = most_accurate_threshold(score, is_same)
    np.testing.assert_allclose(threshold, expected["getThreshold"], rtol=0, atol=1e-6)
    accuracy = np.mean((score >= threshold) == is_same)
    np.testing.assert_allclose(accuracy, expected["getAccuracy_at_getThreshold"], rtol=0, atol=1e-12)


def test_pipeline_from_images_to_accuracy_agrees(section_g: Golden) -> None:
    expected, arrays = section_g[0]["pipeline"], section_g[1]
    weight = torch.from_numpy(arrays["pipeline/W"])
    images, is_same = arrays["pipeline/images"].transpose(0, 2, 3, 1), arrays["pipeline/issame"]

    def embed(images_BHW3: torch.Tensor) -> torch.Tensor:
        x = (images_BHW3.permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
        return x.flatten(1) @ weight

    index = np.arange(len(images))
    stored = IndexedImages(list(np.ascontiguousarray(images)), [str(i) for i in index])
    pairs = Pairs("golden", stored, index[0::2], index[1::2], is_same, contiguous_folds(len(is_same), 10))
    result = Verification("golden", pairs, size=4, batch_size=expected["batch_size"]).measure(embed)
    np.testing.assert_allclose(result.accuracy.mean, expected["acc2"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.accuracy.std, expected["std2"], rtol=0, atol=1e-12)
    np.testing.assert_allclose(result.mean_norm, expected["xnorm"], rtol=1e-5)


def test_real_lfw_embeddings_give_the_published_fold_accuracies(golden: Path, faces: Path) -> None:
    stored = np.load(golden / "lfw_embeddings.npz")
    pairs = read_lfw(faces / "lfw" / "pairs.txt")
    row = {Path(str(name)).name: i for i, name in enumerate(stored["files"])}
    order = [
        row[Path(pairs.images.key(int(i))).name] for pair in zip(pairs.a, pairs.b, strict=True) for i in pair
    ]
    for net, expected in json.loads((golden / "lfw_embeddings.json").read_text()).items():
        result = pair_accuracy(stored[net][order], pairs.is_same, fold_ids=pairs.fold)
        np.testing.assert_allclose(result.folds, expected["acc"], rtol=0, atol=1e-6)
        np.testing.assert_allclose(result.mean, expected["mean"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(result.std, expected["std"], rtol=0, atol=1e-9)
