"""Thresholds of a later evaluation can be taken into the weights, never more than the pairs support."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import facescale
from facescale import backbones
from facescale.checksums import model_damage
from facescale.evaluate.adopt import adopt, adoptable_thresholds
from facescale.evaluate.figures import Figures
from facescale.evaluate.run_protocols import measure
from facescale.export.write import export
from facescale.inference.weights import save_model
from facescale.model_card import Contract, Threshold
from facescale.run import RunDir

OLD = {0.1: Threshold(0.1, 0.05, 0.15, "old"), 0.5: Threshold(0.0, -0.1, 0.1, "old")}
NEW = {0.1: Threshold(0.2, 0.15, 0.25, "new"), 1e-6: Threshold(0.7, 0.6, 0.8, "new")}
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    net = backbones.build("mbf_s", 16)
    spec = {"name": "mbf_s", "embedding_size": 16, "options": {}}
    save_model(tmp_path / "net.safetensors", net.state_dict(), spec, Contract(), OLD)
    return tmp_path / "net.safetensors"


@pytest.mark.parametrize("suffix", [".safetensors", ".onnx"])
def test_thresholds_are_replaced_rate_by_rate_and_weights_stay(weights: Path, suffix: str) -> None:
    path = weights.with_suffix(suffix)
    if suffix == ".onnx":
        export(weights, path)
    before = facescale.load(path, "cpu")
    adopt(path, NEW)
    after = facescale.load(path, "cpu")
    assert dict(after.thresholds) == {0.1: NEW[0.1], 0.5: OLD[0.5], 1e-6: NEW[1e-6]}
    assert after.fingerprint == before.fingerprint and after.contract == before.contract


def test_a_file_of_another_project_has_no_place_for_thresholds(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"net.pth' has no place for thresholds; make a .safetensors of it"):
        adopt(tmp_path / "net.pth", NEW)


def test_intervals_come_with_the_thresholds() -> None:
    name = "threshold@far=0.001"
    given = Figures("all", "all_pairs", "x", {name: 0.6}, {}, intervals={name: (0.5, 0.7)})
    assert adoptable_thresholds(given) == {0.001: Threshold(0.6, 0.5, 0.7, "all")}


@pytest.mark.parametrize(
    ("far", "message"),
    [
        (1e-6, r"FAR 1e-06 needs 10,000,000 impostor pairs and 'all' has 20,000; the nearest .* is 0.0005"),
        (0.02, r"'all' has no threshold at FAR 0.02; the nearest rate that it measures is 0.01"),
    ],
)
def test_a_rate_that_is_not_supported_is_refused_with_the_nearest(far: float, message: str) -> None:
    values = {"threshold@far=0.01": 0.5, "threshold@far=0.001": 0.6}
    given = Figures("all", "all_pairs", "x", values, {"impostor pairs": 20_000})
    assert list(adoptable_thresholds(given, [1e-3])) == [1e-3]
    with pytest.raises(ValueError, match=message):
        adoptable_thresholds(given, [far])
    few = Figures("all", "all_pairs", "x", {}, {"impostor pairs": 20_000})
    with pytest.raises(
        ValueError, match=r"'all' has too few people for a threshold at FAR 0.01: its interval"
    ):
        adoptable_thresholds(few, [0.01])


def test_a_protocol_that_is_too_small_for_every_rate_is_refused() -> None:
    small = Figures("all", "all_pairs", "x", {}, {"impostor pairs": 960})
    with pytest.raises(
        ValueError, match=r"'all' has no threshold to adopt: its 960 impostor pairs are too few"
    ):
        adoptable_thresholds(small)


def test_a_protocol_without_thresholds_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"'who' has no threshold at a false-accept rate; adopt from another"
    ):
        adoptable_thresholds(Figures("who", "identification", "x", {"rank1": 0.5}, {}))


def test_evaluate_adopts_into_the_checkpoint_of_a_run(
    tiny_run: Path, tmp_path: Path, facescale: Command
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("features", "results"))
    words = ["evaluate", str(run), "--on", "late=synthetic:pairs=400", "--device", "cpu", "--no-pictures"]
    code, out, err = facescale(*words, "--adopt", "--far", "0.2")
    assert code == 0, err
    assert "thresholds adopted at FAR 0.2" in out
    from facescale import load

    assert load(run, "cpu").thresholds[0.2].on == "late"
    assert model_damage(RunDir(run).model_path()) == ""
    code, _, err = facescale(*words, "--adopt", "--far", "1e-6")
    assert code == 2
    assert re.search(r"FAR 1e-06 needs 10,000,000 impostor pairs and 'late' has 200; .* is 0.05", err)


def test_one_protocol_at_a_time_is_adopted(weights: Path) -> None:
    drawn = "synthetic:pairs=8,folds=2"
    done = measure(weights, [("a", drawn), ("b", drawn)], 8, "cpu")
    with pytest.raises(ValueError, match=r"2 protocols were measured; name the one to adopt from with --on"):
        done.adopt()
