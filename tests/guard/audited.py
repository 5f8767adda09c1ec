"""Reads a file of every format under an audit hook; prints what was run, imported or reached.

python -m tests.guard.audited FOLDER

The interpreter reports to the hook whatever a pickle, a config or a graph could use to act. Every file is
read once before the hook is set, as libraries import and compile parts of themselves at their first use.
"""

import contextlib
import os
import pickle
import resource
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz.mutate import rewritten_zip
from tests.fuzz.targets import Target, all_targets

# "compile" is not among them: what it makes runs by "exec" only, and parsing a text is a "compile", too.
WATCHED = (
    "pickle.find_class", "exec", "import", "marshal.loads", "os.system", "os.exec", "os.posix_spawn",
    "os.fork", "os.putenv", "subprocess.Popen", "socket.connect", "socket.bind", "socket.getaddrinfo",
    "urllib.Request", "ctypes.dlopen", "webbrowser.open", "shutil.rmtree", "code.__new__",
)  # fmt: skip
MEMORY = 1 << 30


class Touches:
    """Loaded as usual, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def poisoned(target: Target, data: bytes, mark: Path) -> list[bytes]:
    """Files of the target's kind that act when they are loaded without a guard."""
    evil = pickle.dumps({"state_dict": {"w": 1}, "x": Touches(mark)}, 2)
    if target.kind == "zip":
        return [rewritten_zip(data, {"data.pkl": evil})]
    if target.name.startswith("bin") or target.name == "pth row":
        return [evil, pickle.dumps(Touches(mark), 0), pickle.dumps(([Touches(mark)] * 4, [True, False]), 4)]
    return []


def read(target: Target) -> None:
    with contextlib.suppress(ValueError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        target.read(target.folder)


def main() -> None:
    """Read everything; print one line for each event."""
    root = Path(sys.argv[1])
    targets, mark = all_targets(root / "files"), root / "mark"
    originals = [(target.folder / target.victim).read_bytes() for target in targets]
    files = [
        (target, data)
        for target, original in zip(targets, originals, strict=True)
        for data in (original, *poisoned(target, original, mark), original[: len(original) // 2])
    ]
    for target, data in files:
        (target.folder / target.victim).write_bytes(data)
        read(target)
    seen: list[str] = []
    watching = True

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event in WATCHED:
            seen.append(f"{event} {str(arguments)[:100]}")

    size = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    sys.addaudithook(hook)
    for target, data in files:
        (target.folder / target.victim).write_bytes(data)
        before = len(seen)
        read(target)
        seen[before:] = [f"{target.name}: {event}" for event in seen[before:]]
    found = list(seen)
    np.save(root / "x.npy", np.array([Touches(mark)], object), allow_pickle=True)
    seen.clear()
    np.load(root / "x.npy", allow_pickle=True)  # what must be seen
    watching = False
    print("\n".join(found))
    print(f"{len(files)} files, {len(seen) > 0} that the hook sees a pickle, {mark.exists()} that it acted")


if __name__ == "__main__":
    main()
