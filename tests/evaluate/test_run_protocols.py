"""What ``facescale evaluate`` does: protocols by name, results that keep the names."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from facescale import backbones
from facescale.checksums import Checksums
from facescale.config import Config
from facescale.evaluate.run_protocols import evaluate
from facescale.inference.torch_encoder import TorchEncoder
from facescale.train import train

NAMES = ["my set", "a=b?root=c", "../Ünïcode ✓"]
DRAWN = "synthetic:pairs=8,folds=2"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.save(backbones.build("mbf_s", 16).state_dict(), tmp_path / "net.pth")
    return tmp_path / "net.pth"


def test_results_are_called_by_the_names_that_were_given(weights: Path, tmp_path: Path) -> None:
    results, page = evaluate(weights, [(name, DRAWN) for name in NAMES], None, False, 16, "cpu")
    assert [result.name for result in results] == NAMES
    assert page == tmp_path / "report.html"
    tree = json.loads((tmp_path / "results.json").read_text())
    assert [one["name"] for one in tree["results"]] == NAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pth", "report.html", "results.json"]


def test_two_protocols_of_one_name_are_refused(weights: Path) -> None:
    with pytest.raises(ValueError, match=r"2 protocols are called 'synthetic'; tell them apart with --on"):
        evaluate(weights, [("", DRAWN), ("", DRAWN)], None, False, 16, "cpu")


def test_without_a_run_there_must_be_a_protocol(weights: Path) -> None:
    with pytest.raises(
        ValueError, match=r"net.pth.* is not a run with a config; name the protocols with --on"
    ):
        evaluate(weights, [], None, False, 16, "cpu")


def test_a_set_of_any_name_is_trained_on_and_evaluated_again(tiny_config: Config, tmp_path: Path) -> None:
    tree = tiny_config.model_dump(exclude_unset=True)
    tree["eval"] |= {"every": "100%", "sets": {name: DRAWN for name in NAMES}}
    tree["train"]["duration"] = "1 steps"
    result = train(Config.model_validate(tree), tmp_path / "run")
    assert [key.removesuffix("/accuracy") for key in result.metrics if key.endswith("/accuracy")] == NAMES
    again, _ = evaluate(result.run.path, [], tmp_path / "page.html", False, 16, "cpu")
    assert [one.name for one in again] == NAMES
    assert dict(again[0].figures())["accuracy"] == result.metrics["my set/accuracy"]


def test_a_run_keeps_embeddings_and_uses_them_for_any_batch_size_and_protocol(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("features"))
    embedded: list[int] = []
    original = TorchEncoder.__call__

    def counting(self: TorchEncoder, images: torch.Tensor) -> torch.Tensor:
        embedded.append(len(images))
        return original(self, images)

    monkeypatch.setattr(TorchEncoder, "__call__", counting)

    def measured(batch_size: int = 16, cache: bool = True) -> tuple[int, list[float]]:
        embedded.clear()
        results, _ = evaluate(run, [("x", DRAWN)], tmp_path / "x.html", False, batch_size, "cpu", cache)
        return sum(embedded), results[0].scores.tolist()

    asked, first = measured()
    assert asked > 0 and (run / "features").is_dir()
    assert measured(batch_size=3) == (0, first)
    asked_again, computed = measured(batch_size=3, cache=False)
    assert asked_again > 0 and computed == pytest.approx(first, abs=1e-5)
    model = next(path for path in (run / "checkpoints").rglob("model.safetensors"))
    weights = load_file(model)
    for path in (run / "checkpoints").rglob("model.safetensors"):
        with safe_open(path, "pt") as file:
            save_file({k: v * 1.5 for k, v in weights.items()}, path, file.metadata())  # same card
        Checksums().renew(path.parent, path.name, path)
    assert measured()[0] > 0


def test_a_weights_file_of_its_own_keeps_no_embeddings(weights: Path, tmp_path: Path) -> None:
    evaluate(weights, [("x", DRAWN)], None, False, 16, "cpu", limit=4)
    assert not [path for path in tmp_path.rglob("*.npy")]
