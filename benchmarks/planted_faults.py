"""Plant a fault in a copy of the package, run the tests that should notice it, and say which did not.

    python benchmarks/planted_faults.py                 all faults, some minutes on one core
    python benchmarks/planted_faults.py ema twin        those whose name holds one of the words
    python benchmarks/planted_faults.py --check         only whether the texts are still there, a second

The faults are in ``planted_faults.toml``. Each names the tests of which at least one must fail. First those
tests run without a fault, where all must pass. Exits 1 if a fault goes unnoticed or its text is not there
(exactly once): after an edit of the package the table wants the new text.

Each run is a fork of this process, which has imported torch already. Linux or macOS.
"""

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TABLE = Path(__file__).with_suffix(".toml")
_INTERRUPTED = 2  # pytest's code where a signal of a test ended the whole session, as CI would
_SECONDS = 90.0  # a run that takes longer hangs, which is noticed
# Imported once, before the forks: they take longer than most of the tests
_SLOW_IMPORTS = (
    *("torch", "torch._dynamo", "torch.distributed.checkpoint", "torch.onnx", "torch.utils.tensorboard"),
    *(
        "hypothesis",
        "numba",
        "onnx",
        "PIL.Image",
        "pydantic",
        "pytest",
        "rich.console",
        "safetensors.torch",
        "typer",
    ),
)


@dataclass(frozen=True)
class Fault:
    """One edit of the package.

    Attributes:
        name: what is wrong then.
        file: below the package.
        old: text that is there once.
        new: what takes its place.
        tests: below ``tests/``, as pytest takes them.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def planted(self, package: Path) -> str:
        """The file's text with the fault.

        Raises:
            ValueError: the old text is not there exactly once.
        """
        path = package / self.file
        text = path.read_text() if path.is_file() else ""
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.name}: facescale/{self.file} holds this text {text.count(self.old)} times, not once; "
                f"write down what it has become:\n{self.old}"
            )
        return text.replace(self.old, self.new)


def read_faults(table: Path = TABLE) -> list[Fault]:
    """All faults of the table."""
    rows = tomllib.loads(table.read_text())["fault"]
    return [Fault(**{**row, "tests": tuple(row["tests"])}) for row in rows]


def problems(faults: Sequence[Fault], package: Path = ROOT / "facescale") -> list[str]:
    """A sentence for each fault whose text is not there, or whose tests are not."""
    found = []
    for fault in faults:
        try:
            fault.planted(package)
        except ValueError as error:
            found.append(str(error))
        for test in fault.tests:
            if not (ROOT / "tests" / test.partition("::")[0]).exists():
                found.append(f"{fault.name}: there is no tests/{test}")
    return found


@contextmanager
def _applied(fault: Fault, copy: Path) -> Iterator[None]:
    path = copy / "facescale" / fault.file
    original, times = path.read_bytes(), path.stat()
    path.write_text(fault.planted(copy / "facescale"))
    try:
        yield
    finally:
        path.write_bytes(original)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))  # by which its byte code knows it


def run_tests(copy: Path, tests: Sequence[str]) -> int | None:
    """Exit code of pytest in a fork of this process; None where it took too long."""
    child = os.fork()
    if child == 0:
        os.setsid()
        _child(copy, tests)
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.killpg(child, signal.SIGKILL)  # its own session: it, and processes that its tests have started
    os.waitpid(child, 0)
    return None


def _child(copy: Path, tests: Sequence[str]) -> None:
    import pytest

    log = os.open(copy / "pytest.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)  # of commands that tests start
    sys.path.insert(0, str(copy))
    import facescale

    assert Path(facescale.__file__ or "").is_relative_to(copy)
    options = ["-q", "-x", "-p", "no:cacheprovider", "--show-capture=no", "--tb=line"]
    os._exit(pytest.main([*options, *(f"tests/{test}" for test in tests)]))


def _measure(fault: Fault, copy: Path) -> tuple[bool, str]:
    """Whether a fault is noticed, and by what."""
    with _applied(fault, copy):
        code = run_tests(copy, fault.tests)
    if code is None:
        return True, f"hangs for {_SECONDS:.0f} s"
    lines = (copy / "pytest.log").read_text(errors="replace").splitlines()
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    if code in (1, _INTERRUPTED) or code < 0:
        return True, failed[0].partition(" - ")[0] if failed else f"exit code {code}"
    if code == 0:
        return False, "all pass"
    return False, f"pytest ends with exit code {code}: {(failed or lines or [''])[-1]}"


def main(words: Sequence[str], check_only: bool) -> int:
    """Plant the faults, one after the other; returns the exit code."""
    faults = [fault for fault in read_faults() if not words or any(word in fault.name for word in words)]
    wrong = problems(faults)
    print(*wrong, sep="\n", end="\n" if wrong else "")
    if wrong or check_only:
        print(f"{len(faults)} faults, {len(wrong)} problems")
        return int(bool(wrong))
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    for module in _SLOW_IMPORTS:
        with suppress(ImportError):
            importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("facescale", "tests", "benchmarks"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        tests = sorted({test for fault in faults for test in fault.tests})
        code = run_tests(copy, tests)
        if code != 0:
            print((copy / "pytest.log").read_text()[-2000:], f"without a fault: exit code {code}", sep="\n")
            return 1
        sys.dont_write_bytecode = True  # two faults of one second and one length would share their byte code
        unnoticed = 0
        for fault in faults:
            start = time.monotonic()
            noticed, by = _measure(fault, copy)
            unnoticed += not noticed
            state = "noticed  " if noticed else "UNNOTICED"
            print(f"{state}  {time.monotonic() - start:5.1f} s  {fault.name}  ({by})", flush=True)
    print(f"{len(faults) - unnoticed} of {len(faults)} faults noticed")
    return int(unnoticed > 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only faults whose name holds one of them")
    parser.add_argument("--check", action="store_true", help="only look whether the texts are there")
    given = parser.parse_args()
    sys.exit(main(given.words, given.check))
