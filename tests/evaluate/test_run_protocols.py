"""What ``facescale evaluate`` does: protocols by name, results that keep the names."""

import errno
import html
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from facescale import backbones
from facescale.config import Config
from facescale.evaluate import run_protocols
from facescale.evaluate.protocols.write import write_protocol
from facescale.evaluate.records import read_records
from facescale.evaluate.run_protocols import evaluate, report
from facescale.inference.load import load
from facescale.inference.model import Model
from facescale.run import RunDir
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
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "net.pth",
        "report.html",
        "results",
        "results.json",
    ]


def test_scaled_images_are_said_unless_the_model_was_trained_on_such(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = tmp_path / "small.bin"
    write_protocol("synthetic:ids=4,images=4,size=56", small, 8, 2, 0)
    (result,), _ = evaluate(weights, [("small", str(small))], None, False, 16, "cpu")
    assert any("are 56x56 and were scaled to 112x112" in note for note in result.notes())

    def resizing(*given: Any, **more: Any) -> Model:
        model = load(*given, **more)
        return Model(model.encoder, replace(model.card, contract=replace(model.contract, resize="area")))

    monkeypatch.setattr(run_protocols, "load", resizing)
    (result,), _ = evaluate(weights, [("small", str(small))], None, False, 16, "cpu")
    assert not any("scaled" in note for note in result.notes())


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
    tiny_run: Path, tmp_path: Path, embedded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(tiny_run, run, ignore=shutil.ignore_patterns("features"))

    def measured(batch_size: int = 16, cache: bool = True) -> tuple[int, list[float]]:
        embedded.clear()
        results, _ = evaluate(run, [("x", DRAWN)], tmp_path / "x.html", False, batch_size, "cpu", cache)
        return sum(embedded), results[0].scores.tolist()

    asked, first = measured()
    assert asked > 0 and (run / "features").is_dir()
    assert measured(batch_size=3) == (0, first)
    asked_again, computed = measured(batch_size=3, cache=False)
    assert asked_again > 0 and computed == pytest.approx(first, abs=1e-5)

    def changed(path: Path, device: str, contract: str | None = None) -> Model:
        model = load(path, device, contract=contract)
        with torch.no_grad():
            next(model.module.parameters()).mul_(1.5)  # the card still has the old fingerprint
        return model

    monkeypatch.setattr(run_protocols, "load", changed)
    assert measured()[0] > 0


def test_a_weights_file_of_its_own_keeps_no_embeddings(weights: Path, tmp_path: Path) -> None:
    evaluate(weights, [("x", DRAWN)], None, False, 16, "cpu", limit=4)
    assert not [path for path in tmp_path.rglob("*.npy")]


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A finished run that may be written into."""
    shutil.copytree(tiny_run, tmp_path / "run", ignore=shutil.ignore_patterns("features", "results"))
    return tmp_path / "run"


def shown(page: Path) -> str:
    return html.unescape(page.read_text())


def test_a_second_protocol_is_added_to_the_first(run: Path) -> None:
    evaluate(run, [("first", DRAWN)], None, False, 16, "cpu")
    evaluate(run, [("second", DRAWN)], None, False, 16, "cpu")
    tree = json.loads((run / "results.json").read_text())
    assert [one["name"] for one in tree["results"]] == ["second", "first"]
    assert ">first<" in shown(run / "report.html") and ">second<" in shown(run / "report.html")
    (run / "report.html").unlink()
    report(run, None)
    assert ">first<" in shown(run / "report.html") and ">second<" in shown(run / "report.html")
    assert len(json.loads((run / "results.json").read_text())["results"]) == 2


def test_the_page_names_checkpoint_fingerprint_step_data_and_licence(run: Path) -> None:
    evaluate(run, [("x", DRAWN)], None, False, 16, "cpu")
    model = load(run, "cpu")
    step = RunDir(run).model_path().parent.name
    text = shown(run / "report.html")
    for word in (step, model.fingerprint, str(model.info["data"]), "not stated"):
        assert f">{word}<" in text
    (record,) = read_records(run / "results")
    assert record.model.step == int(step.removeprefix("step_"))


def test_checkpoints_of_a_run_are_kept_beside_each_other(run: Path) -> None:
    steps = RunDir(run).steps()
    folders = [RunDir(run).snapshot(step) for step in steps]
    for path in (folders[0], folders[-1] / "model.safetensors"):
        _, page = evaluate(path, [("x", DRAWN)], None, False, 16, "cpu")
        assert page == run / "report.html"
    assert [one.model.step for one in read_records(run / "results")] == [steps[0], steps[-1]]
    assert all(f">{folder.name}<" in shown(run / "report.html") for folder in (folders[0], folders[-1]))


def test_training_and_a_later_evaluation_agree_on_the_fingerprint(tiny_run: Path) -> None:
    run = RunDir(tiny_run)
    for record in read_records(run.results):
        if record.model.step in run.steps() and record.name == "unseen":
            assert record.model.fingerprint == load(run.snapshot(record.model.step), "cpu").fingerprint


def test_pictures_are_kept_for_the_report_unless_they_must_not_be(run: Path) -> None:
    evaluate(run, [("x", DRAWN)], None, False, 16, "cpu")
    assert "data:image" not in (run / "report.html").read_text()
    evaluate(run, [("x", DRAWN)], None, True, 16, "cpu")
    report(run, None)
    assert "data:image" in (run / "report.html").read_text()
    report(run, None, pictures=False)
    assert "data:image" not in (run / "report.html").read_text()


@pytest.fixture
def read_only(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The run, where no file can be made in it."""
    touch, opened = Path.touch, Path.open

    def refused(path: Path, *words: Any, **options: Any) -> Any:
        if run in path.parents and (not words or words[0] != "r"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return (opened if words else touch)(path, *words, **options)

    monkeypatch.setattr(Path, "touch", refused)
    monkeypatch.setattr(Path, "write_text", lambda path, *_, **__: refused(path, "w"))
    return run


def test_figures_are_printed_where_nothing_may_be_written(
    read_only: Path, facescale: Callable[..., tuple[int, str, str]]
) -> None:
    words = ["evaluate", str(read_only), "--on", f"x={DRAWN}", "--device", "cpu", "--no-cache"]
    code, out, err = facescale(*words)
    assert code == 0 and "x: accuracy" in out
    refusal = r"no report: cannot write '.*run/results/step_.*json' \(Read-only.*\); give --out FILE"
    assert re.search(refusal, err)
    code, out, _ = facescale(*words, "--json")
    assert code == 0 and json.loads(out)["report"] is None


def test_a_page_that_cannot_be_written_is_found_out_before_anything_is_measured(
    read_only: Path, facescale: Callable[..., tuple[int, str, str]]
) -> None:
    words = ["evaluate", str(read_only), "--on", f"x={DRAWN}", "--device", "cpu", "--no-cache", "--out"]
    code, out, err = facescale(*words, str(read_only / "page.html"))
    assert code == 2 and out == ""
    assert re.search(r"cannot write '.*run/page.html' \(Read-only file system\); name another file", err)


def test_results_of_a_read_only_run_go_beside_the_page(run: Path, tmp_path: Path) -> None:
    (run / "results").write_text("in the way")  # root may write everywhere but here
    evaluate(run, [("x", DRAWN)], tmp_path / "out" / "page.html", False, 16, "cpu")
    assert [one.name for one in read_records(tmp_path / "out" / "results")] == ["x"]
    with pytest.raises(OSError, match="results"):
        evaluate(run, [("x", DRAWN)], None, False, 16, "cpu")
