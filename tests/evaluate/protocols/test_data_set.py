"""Identification and all pairs on any data set, from its spec to the report."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from facescale.evaluate import all_pairs
from facescale.evaluate.protocols import data_set
from facescale.evaluate.protocols.open import open_protocol

SPEC = "synthetic:ids=12,images=4,size=32"


def colours(images: torch.Tensor) -> torch.Tensor:
    """A network that sees mean colours in four quarters."""
    x = images.float().reshape(len(images), 2, 16, 2, 16, 3).mean(dim=(2, 4)).flatten(1)
    return x - x.mean(dim=1, keepdim=True)


def test_identification_enrols_every_other_person_with_one_image() -> None:
    protocol = open_protocol(f"identification:{SPEC}", 32, flip=False, name="mine")
    result = protocol.measure(colours)
    assert result.name == "mine"
    figures = result.to_dict()
    assert figures["counts"] == {
        "images": 48,
        "people enrolled": 6,
        "probes with a mate": 18,
        "probes of strangers": 24,
    }
    values = dict(result.figures())
    assert 1 / 6 <= values["rank1"] <= values["rank5"] <= 1
    assert "tpir@fpir=0.1" not in values
    assert "mine: FPIR 0.1 needs 100 images of strangers, there are 24" in result.notes()


def test_a_perfect_network_finds_everybody() -> None:
    protocol = open_protocol("identification:synthetic:ids=60,images=4,size=32", 32, flip=False)
    ids = iter(protocol.reader.ids.tolist())

    def knows(images: torch.Tensor) -> torch.Tensor:
        return torch.eye(60)[[next(ids) for _ in images[:]]]

    protocol = type(protocol)(protocol.name, protocol.source, protocol.reader, 32, False, 2)
    values = dict(protocol.measure(knows).figures())
    assert values["rank1"] == 1 and values["tpir@fpir=0.1"] == 1


def test_too_few_people_are_refused() -> None:
    with pytest.raises(ValueError, match="has 2 people with two images or more; identification needs 4"):
        open_protocol("identification:synthetic:ids=2,images=3,size=32", 32).measure(colours)


def test_all_pairs_are_counted() -> None:
    result = open_protocol(f"all_pairs:{SPEC}", 32, flip=False).measure(colours)
    values = dict(result.figures())
    assert result.to_dict()["counts"]["genuine pairs"] == 12 * 6
    assert 0 < values["tar@far=0.01"] <= 1 and "tar@far=1e-06" not in values
    assert "all_pairs: tar@far=0.01 " in result.summary()
    assert result.notes() == ["all_pairs: FAR 0.001, 0.0001, 1e-05, 1e-06: 1,056 impostor pairs are too few"]


def test_rates_with_more_false_accepts_than_are_kept_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(all_pairs, "MOST_KEPT", 5)
    monkeypatch.setattr(data_set, "MOST_KEPT", 5)
    result = open_protocol(f"all_pairs:{SPEC}", 32, flip=False).measure(colours)
    assert "all_pairs: FAR 0.01 is 11 impostor pairs, more than are kept (5)" in result.notes()
    assert "tar@far=0.01" not in dict(result.figures())


def test_the_command_measures_reports_and_prints_them(
    facescale: Callable[..., tuple[int, str, str]], tiny_run: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    code, out, err = facescale(
        "evaluate",
        str(tiny_run),
        "--on",
        f"who=identification:{SPEC}",
        "--on",
        f"pairs=all_pairs:{SPEC}",
        "--out",
        str(page),
    )
    assert code == 0, err
    assert "who: rank1 " in out and "pairs: tar@far=0.01 " in out
    text = page.read_text()
    assert "people enrolled" in text and "impostor pairs" in text
    results = json.loads((tmp_path / "results.json").read_text())["results"]
    assert [one["kind"] for one in results[:2]] == ["identification", "all_pairs"]
    assert np.isfinite(list(results[0]["figures"].values())).all()
