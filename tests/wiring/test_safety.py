"""Files from elsewhere run nothing; files of ours are on disk before they have their name."""

import importlib
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from facescale import load
from facescale.evaluate.protocols.open import open_protocol
from facescale.files import write_atomically
from tests.wiring.toy import train_toy

CALLS = {
    "open": ("builtins", "open", ("{path}", "w")),
    "__builtin__": ("__builtin__", "open", ("{path}", "w")),
    "io.open": ("io", "open", ("{path}", "w")),
    "_io.open": ("_io", "open", ("{path}", "w")),
    "eval": ("builtins", "eval", ("open('{path}', 'w')",)),
    "exec": ("builtins", "exec", ("open('{path}', 'w')",)),
    "system": ("os", "system", ("touch {path}",)),
    "posix.system": ("posix", "system", ("touch {path}",)),
    "mkdir": ("os", "mkdir", ("{path}",)),
    "getattr": ("builtins", "getattr", ("{path}", "upper")),
    "numpy.save": ("numpy", "save", ("{path}", 1)),
}


def calling(name: str, path: Path, protocol: int) -> bytes:
    """A pickle that calls a function, by just this name, when it is loaded as usual."""
    module, function, arguments = CALLS[name]
    filled = tuple(a.format(path=path) if isinstance(a, str) else a for a in arguments)
    start, by_name = pickle.PROTO + bytes([protocol]), pickle.GLOBAL + f"{module}\n{function}\n".encode()
    return start + by_name + pickle.dumps(filled, 0)[:-1] + pickle.REDUCE + pickle.STOP


def test_the_planted_pickles_work(tmp_path: Path) -> None:
    for name in ("open", "__builtin__", "system"):
        pickle.loads(calling(name, tmp_path / name, 2))
        assert (tmp_path / name).exists()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", CALLS)
def test_a_bin_of_pairs_calls_nothing(name: str, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "lfw.bin"
    path.write_bytes(calling(name, tmp_path / "made", protocol))
    with pytest.raises(ValueError, match="asks to run"):
        open_protocol(str(path))
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("name", sorted(CALLS.keys() - {"__builtin__"}))
@pytest.mark.parametrize("new", [True, False], ids=["zip", "before torch 1.6"])
def test_a_checkpoint_of_others_calls_nothing(name: str, new: bool, tmp_path: Path) -> None:
    module, function, arguments = CALLS[name]
    filled = tuple(a.format(path=tmp_path / "made") if isinstance(a, str) else a for a in arguments)

    class Call:
        def __reduce__(self) -> Any:
            return getattr(importlib.import_module(module), function), filled

    path = tmp_path / "net.pth"
    torch.save(
        {"state_dict": {"w": torch.zeros(2)}, "call": Call()}, path, _use_new_zipfile_serialization=new
    )
    with pytest.raises(ValueError):
        load(path, device="cpu")
    assert not (tmp_path / "made").exists()


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Numbers of the files and folders that were put on disk."""
    numbers: set[int] = set()
    fsync = os.fsync

    def spy(handle: int) -> None:
        numbers.add(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    return numbers


def test_a_file_is_on_disk_before_it_has_its_name(
    synced: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def spy(self: Path, target: Path) -> Path:
        assert self.stat().st_ino in synced
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", spy)
    write_atomically(tmp_path / "a.json", "{}")
    assert (tmp_path / "a.json").read_text() == "{}"


def test_a_checkpoint_is_on_disk_before_it_has_its_name(
    synced: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename, renamed = Path.rename, []

    def spy(self: Path, target: Path) -> Path:
        if target.name.startswith("step_"):
            missing = [path.name for path in [self, *self.rglob("*")] if path.stat().st_ino not in synced]
            assert not missing
            renamed.append(target)
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", spy)
    run = train_toy(tmp_path, "train.duration=2 steps", "eval.every=2 steps").run
    assert renamed == [run.snapshot(2)]
    assert run.checkpoints.stat().st_ino in synced, "so that the new name is there after a power failure"
