"""Nothing that is read runs, imports, connects or takes memory before it is known to fit."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import facescale
from facescale import backbones, load
from facescale.config import load_config
from facescale.guard.failures import NoticeWarning
from facescale.model_card import KEY, Card, Contract
from facescale.train import train
from tests.tiny import TINY, train_steps

ROOT = Path(facescale.__file__).parent


def test_no_loader_runs_what_is_in_a_file(tmp_path: Path) -> None:
    checkout = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-m", "tests.guard.audited", str(tmp_path)],
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    *events, last = done.stdout.strip().splitlines()
    assert not list(filter(None, events)), events
    # np.load of objects at the end acts, so the mark is there, and the hook sees it
    assert last.endswith("files, True that the hook sees a pickle, True that it acted")
    assert int(last.split()[0]) > 100


MODULES = {"pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle"}
LOADERS = {"load", "loads", "Unpickler", "_Unpickler"}
RUNNERS = {"eval", "exec", "compile", "__import__"}


def unguarded(source: str) -> Iterator[str]:
    """Calls in a source that unpickle, or run text."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Name) and function.id in RUNNERS:
            yield f"{node.lineno}: {function.id}"
        owner = function.value if isinstance(function, ast.Attribute) else None
        name = f"{owner.id}.{function.attr}" if isinstance(owner, ast.Name) else ""  # type: ignore[union-attr]
        module, _, attribute = name.partition(".")
        if (
            module in ("pickle", "marshal", "shelve", "joblib", "dill", "cloudpickle")
            and attribute in LOADERS
        ):
            yield f"{node.lineno}: {name}"
        if name in ("torch.load", "td.load", "yaml.load", "dcp.load"):
            yield f"{node.lineno}: {name}"
        allows = [word.value for word in node.keywords if word.arg == "allow_pickle"]
        if any(isinstance(value, ast.Constant) and value.value for value in allows):
            yield f"{node.lineno}: allow_pickle"


def test_no_line_unpickles_but_through_the_guard() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{call}"
        for path in ROOT.rglob("*.py")
        for call in unguarded(path.read_text("utf-8"))
    }
    assert not found


@pytest.mark.parametrize(
    "line",
    ["pickle.load(f)", "torch.load(p)", "np.load(p, allow_pickle=True)", "eval(t)", "marshal.loads(b)"],
)
def test_the_check_sees_what_it_should(line: str) -> None:
    assert list(unguarded(line))
    assert not list(unguarded("np.load(p, allow_pickle=False); json.loads(t); torch.save(x, p); compiled()"))


SPEC = {"name": "mbf_s", "embedding_size": 16, "options": {}}


def card_file(path: Path, **spec: Any) -> Path:
    save_file({"a": torch.zeros(1)}, path, {KEY: Card(backbone={**SPEC, **spec}).to_json()})
    return path


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "vit_h"},
        {"name": "r18", "embedding_size": 10**12},
        {"name": "mbf", "options": {"input_size": 10**6}},
    ],
)
def test_a_card_of_a_huge_network_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]
) -> None:
    made: list[torch.device] = []
    real = nn.Parameter.__new__

    def watched(cls: Any, data: Any = None, *rest: Any, **more: Any) -> Any:
        made.append(data.device)
        return real(cls, data, *rest, **more)

    monkeypatch.setattr(nn.Parameter, "__new__", watched)
    with pytest.raises(ValueError, match=r"entries are missing, 1 entries too many; the first is"):
        load(card_file(tmp_path / "x.safetensors", **spec), device="cpu")
    assert made and set(made) == {torch.device("meta")}


class Timm(ModuleType):
    """A package timm that notes what it was asked for."""

    asked: list[bool]

    def is_model(self, name: str) -> bool:
        return name == "net"

    def create_model(self, name: str, pretrained: bool, num_classes: int, **_: Any) -> nn.Module:
        self.asked.append(pretrained)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, num_classes))


def test_a_card_downloads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = Timm("timm")
    timm.asked = []
    monkeypatch.setitem(sys.modules, "timm", timm)
    options = {"pretrained": True, "input_size": 32}
    state = backbones.build("timm:net", 16, input_size=32).state_dict()
    card = Card(Contract(size=32), {"name": "timm:net", "embedding_size": 16, "options": options})
    save_file(state, tmp_path / "x.safetensors", {KEY: card.to_json()})
    assert load(tmp_path / "x.safetensors", device="cpu").embedding_size == 16
    assert not any(timm.asked)
    other = replace(card, backbone={"name": "timm:hf-hub:a/b", "embedding_size": 16, "options": options})
    save_file(state, tmp_path / "x.safetensors", {KEY: other.to_json()})
    with pytest.raises(ValueError, match="timm has no model 'hf-hub:a/b'"):
        load(tmp_path / "x.safetensors", device="cpu")


def test_a_training_downloads_once_and_says_so_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timm = Timm("timm")
    timm.asked = []
    monkeypatch.setitem(sys.modules, "timm", timm)
    words = [*TINY, "eval.sets={}", "train.ema=0", "train.precision=fp32"]
    given = [*words, "backbone.name=timm:net", "backbone.pretrained=true"]
    wrong = load_config(None, [word.replace("timm:net", "timm:other") for word in given])
    with pytest.raises(ValueError, match="timm has no model 'other'"):
        train(wrong, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists() and timm.asked == []
    config = load_config(None, given)
    with pytest.warns(
        NoticeWarning, match=r"backbone.pretrained: timm downloads the weights of 'timm:net', unless"
    ):
        train_steps(config, tmp_path / "run", 2)
    assert timm.asked.count(True) == 1
    assert train(config, tmp_path / "run").finished  # from its checkpoint
    other = load_config(None, [*given, f"train.init={tmp_path / 'run'}"])
    assert train(other, tmp_path / "other").finished
    assert timm.asked.count(True) == 1

    def refused(*_: Any, **options: Any) -> nn.Module:
        raise OSError("no connection")

    monkeypatch.setattr(timm, "create_model", refused)
    sentence = r"of 'timm:net' cannot be downloaded \(no connection\); get .* backbone.pretrained = false"
    with pytest.raises(ValueError, match=sentence):
        backbones.build("timm:net", 16, pretrained=True)
    with pytest.raises(OSError, match="no connection"):
        backbones.build("timm:net", 16)


def test_describing_a_pretrained_network_downloads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = Timm("timm")
    timm.asked = []
    monkeypatch.setitem(sys.modules, "timm", timm)
    with torch.device("meta"):
        backbones.build("timm:net", 16, pretrained=True, input_size=32)
    assert timm.asked == [False]
