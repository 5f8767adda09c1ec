"""Fuzz every reader with many damaged files, each in a child process with limits.

python -m tests.fuzz.run --inputs 200000 --seed 1 [--only NAME] [--report FILE]

Input number i of a seed is always the same file. A child reads many inputs one after the other and tells how
far it is; when one of them ends it, the next child goes on behind. What counts as a finding: an error that is
no sentence of this package, a process that dies, more than 5 s of computing, more than 1 GB of memory.
"""

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from facescale.guard.reading import is_sentence
from tests.fuzz.mutate import mutated
from tests.fuzz.targets import Target, all_targets

SECONDS, WAITING, MEMORY = 5.0, 60.0, 1 << 30


class TooLong(BaseException):
    """An input takes too long."""


class Fuzzer:
    """The targets and the originals of their files."""

    def __init__(self, root: Path, seed: int, only: str = "") -> None:
        self.seed = seed
        self.targets = [target for target in all_targets(root) if only in target.name]
        self.originals = [(target.folder / target.victim).read_bytes() for target in self.targets]

    def one(self, number: int) -> tuple[Target, str]:
        """Read input ``number``; what is wrong, or nothing."""
        rng = random.Random(f"{self.seed}:{number}")
        place = number % len(self.targets)
        target = self.targets[place]
        data = mutated(self.originals[place], rng, target.kind, self.originals)
        path = target.folder / target.victim
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        return target, _wrong(target)


def _wrong(target: Target) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target.read(target.folder)
    except ValueError as error:
        text = str(error)
        if not is_sentence(error) and "facescale was not asked" not in text:
            return _named(error)
        if "more memory than there is" in text:
            return f"takes more than {MEMORY >> 20} MB: {text[:200]}"
    except TooLong as error:
        return f"takes more than {SECONDS:g} s: {_where(error)}"
    except Exception as error:
        return _named(error)
    return ""


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:200]!r} at {_where(error)}"


def _where(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "/facescale/" in f.filename]
    return ", ".join(f"{Path(f.filename).name}:{f.lineno}" for f in frames[-3:])


def _stop(*_: Any) -> None:
    raise TooLong


def child(fuzzer: Fuzzer, numbers: range, report: int) -> None:
    """Read inputs one after the other, in a process of its own."""
    size = int(Path("/proc/self/statm").read_text("ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    signal.signal(signal.SIGPROF, _stop)
    signal.signal(signal.SIGALRM, _stop)
    for number in numbers:
        os.write(report, json.dumps(["starts", number]).encode() + b"\n")
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        signal.setitimer(signal.ITIMER_REAL, WAITING)
        try:
            target, wrong = fuzzer.one(number)
        except TooLong:
            target, wrong = fuzzer.targets[number % len(fuzzer.targets)], "takes too long"
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        if wrong:
            os.write(report, json.dumps(["wrong", number, target.name, wrong]).encode() + b"\n")


def fuzz(fuzzer: Fuzzer, inputs: int, batch: int = 500) -> list[tuple[int, str, str]]:
    """Read ``inputs`` files in children of up to ``batch`` each; (number, target, finding) of each."""
    findings: list[tuple[int, str, str]] = []
    start, began = 0, time.monotonic()
    while start < inputs:
        stop = min(start + batch, inputs)
        receive, send = os.pipe()
        process = os.fork()
        if process == 0:
            os.close(receive)
            quiet = os.open(os.devnull, os.O_WRONLY)
            os.dup2(quiet, 1), os.dup2(quiet, 2)
            try:
                child(fuzzer, range(start, stop), send)
            finally:
                os._exit(0)
        os.close(send)
        last = start - 1
        with os.fdopen(receive, encoding="utf-8") as lines:
            for line in lines:
                kind, number, *rest = json.loads(line)
                last = number
                if kind == "wrong":
                    findings.append((number, rest[0], rest[1]))
                    print(f"{number} {rest[0]}: {rest[1]}", flush=True)
        _, status = os.waitpid(process, 0)
        if status:
            name = fuzzer.targets[last % len(fuzzer.targets)].name
            findings.append((last, name, f"the process ended with status {status}"))
            print(f"{last} {name}: the process ended with status {status}", flush=True)
        before, start = start, last + 1
        if before // 10_000 != start // 10_000 or start >= inputs:
            print(f"{start:,} inputs, {len(findings)} findings, {time.monotonic() - began:.0f} s", flush=True)
    return findings


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inputs", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="targets whose name holds this")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder), chosen.seed, chosen.only)
        print(f"{len(fuzzer.targets)} targets", flush=True)
        findings = fuzz(fuzzer, chosen.inputs)
    for (name, wrong), count in Counter((name, wrong) for _, name, wrong in findings).most_common():
        print(f"{count} x {name}: {wrong}")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
