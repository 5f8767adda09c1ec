"""Compare two run folders file by file; what depends on the clock or on the folder's place is left out."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

CLOCK = ("time", "images_per_s", "wait_share", "seconds", "waited")


def differences(one: Path, other: Path) -> list[str]:
    """A sentence for every file that only one run has, or that differs."""
    files, others = _files(one), _files(other)
    found = [f"only in one run: {name}" for name in sorted(files ^ others)]
    for name in sorted(files & others):
        a, b = _content(one / name), _content(other / name)
        found += [f"{name}: {where}" for where in _unequal(a, b)]
    return found


def _files(run: Path) -> set[str]:
    paths = (path for path in run.rglob("*") if path.is_file())
    names = {str(path.relative_to(run)) for path in paths}
    # TensorBoard's files are named after time and host; rows on disk are stored in the order of first use
    # since the start, and checkpoints hold all of them; cached features may be deleted.
    return {name for name in names if not name.startswith(("tensorboard/", "centres/", "features/"))}


def _content(path: Path) -> Any:
    if path.suffix == ".pt":
        return torch.load(path, weights_only=True)
    if path.name == "manifest.json":  # checksums, of files with times too
        return list(json.loads(path.read_text())["files"])
    if path.suffix == ".json":
        return json.loads(path.read_text())
    if path.suffix == ".jsonl":  # a second sitting writes a start line of its own
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [row for row in rows if row["kind"] != "start" or row["step"] == 0]
    if path.name == ".metadata":  # torch's index of a distributed checkpoint, with a random id
        return None
    return path.read_bytes()


def _unequal(a: Any, b: Any, place: str = "") -> Iterator[str]:
    """Places of nested values at which they differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            yield f"{place} has other keys: {sorted(map(str, a.keys() ^ b.keys()))}"
        for key in a.keys() & b.keys():
            if key not in CLOCK:
                yield from _unequal(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            yield f"{place} has {len(a)} and {len(b)} entries"
        for number, (x, y) in enumerate(zip(a, b, strict=False)):
            yield from _unequal(x, y, f"{place}[{number}]")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.dtype != b.dtype or not torch.equal(a, b):
            yield f"{place} differs"
    elif type(a) is not type(b) or a != b:
        yield f"{place} is {str(a)[:60]} and {str(b)[:60]}"
