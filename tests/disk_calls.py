"""Record which files are put on disk, and what is renamed, in order."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

# ("sync", inode) or ("rename", inode of what is renamed)
Call = tuple[str, int]


def record_calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """The list that later calls of fsync, rename and replace are added to."""
    calls: list[Call] = []
    fsync = os.fsync

    def sync(handle: int) -> None:
        fsync(handle)
        calls.append(("sync", os.fstat(handle).st_ino))

    def renaming(rename: Callable[..., None]) -> Callable[..., None]:
        def renamed(source: Any, target: Any, *rest: Any, **options: Any) -> None:
            calls.append(("rename", Path(source).stat().st_ino))
            rename(source, target, *rest, **options)

        return renamed

    monkeypatch.setattr(os, "fsync", sync)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, renaming(getattr(os, name)))
    return calls


def inode(path: Path) -> int:
    """What stays of a file when it is renamed."""
    return path.stat().st_ino
