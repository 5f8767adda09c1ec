"""Kill trainings again and again: nothing that was saved is lost, and the end is that of a run never killed.

    python -m tests.kills                        every case, 100 kills each
    python -m tests.kills pfc_disk --kills 300   one case

A sitting is a forked process (or a group of them), so that it does not pay for imports. It ends at its n-th
change of the file system, for every n in some order, or after a random time; then the next one goes on. With
two processes the other one is killed right after, or left to find out by itself.
"""

import argparse
import gc
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as td

from facescale import backbones
from facescale.checksums import Checksums
from facescale.config import load_config
from facescale.data.synthetic.faces import SyntheticFaces
from facescale.distributed import Dist
from facescale.run import RunDir
from facescale.train import train
from facescale.train.checkpoint import newest_whole
from tests.same_run import CLOCK, differences
from tests.wiring.toy import SETTINGS, Toy

STEPS = 6
COMMON = [
    *SETTINGS,
    f"train.duration={STEPS} steps",
    "train.ema=0.5",
    "backbone.dropout=0.3",
    "checkpoint.every=1 steps",
    "checkpoint.keep=2",
    "eval.every=3 steps",
]
_PFC = ["head.name=partial_fc", "head.rate=0.5"]
CASES: dict[str, list[str]] = {
    "full": ["head.name=full"],
    "full_disk": ["head.name=full", "head.placement=disk"],
    "pfc": _PFC,
    "pfc_host": [*_PFC, "head.placement=host"],
    "pfc_disk": [*_PFC, "head.placement=disk"],
    "attfc": ["head.name=attfc", "head.share=0.5"],
    "f2c": ["head.name=f2c", "head.share=0.5"],
}
CASES |= {f"{name}_background": [*words, "checkpoint.background=true"] for name, words in CASES.items()}

_CHANGES = {"os.rename", "os.link", "os.mkdir", "os.remove", "os.rmdir", "os.truncate"}
_CALLS = 150  # changes of the file system up to which a sitting is killed: some three checkpoints
_MOST_S = 60.0  # that a sitting of a fraction of a second may take


@dataclass
class Tally:
    """What a campaign did.

    Attributes:
        kills: sittings that SIGKILL ended.
        during_writes: those that left a half-written checkpoint.
        runs: whole runs that were compared with one that was never killed.
        faults: what was lost, or differs.
    """

    kills: int = 0
    during_writes: int = 0
    runs: int = 0
    faults: list[str] | None = None

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.kills} kills ({self.during_writes} left a half-written checkpoint), {self.runs} runs "
            f"compared, {len(self.faults or [])} faults"
        )


def campaign(name: str, processes: int, kills: int, folder: Path, seed: int = 0) -> Tally:
    """Kill sittings of one case until there were ``kills``, and compare every run that comes to its end."""
    _prepare(name)
    draw, tally, log = random.Random(seed), Tally(faults=[]), folder / f"{name}_{processes}.log"
    assert tally.faults is not None
    whole, run = RunDir(folder / f"{name}_{processes}_whole"), RunDir(folder / f"{name}_{processes}")
    for one in (whole, run):
        shutil.rmtree(one.path, ignore_errors=True)
    began = time.monotonic()
    if _wait(_sitting(name, whole.path, processes, log)) != [0] * processes:
        raise RuntimeError(f"{name} does not train: {log.read_text()[-2000:]}")
    span = time.monotonic() - began
    calls: list[int] = []
    while tally.kills < kills and len(tally.faults) < 5:
        before = (run.steps() or [0])[-1]
        by_call = draw.random() < 0.7
        calls = calls or draw.sample(range(1, _CALLS + 1), _CALLS)
        victim = draw.randrange(processes)
        pids = _sitting(name, run.path, processes, log, kill=(victim, calls.pop()) if by_call else None)
        if not by_call:
            time.sleep(draw.uniform(0, span))
            os.kill(pids[victim], signal.SIGKILL)
        codes = _wait_for_end(pids, victim, together=draw.random() < 0.7)
        tally.kills += codes[victim] == -signal.SIGKILL
        tally.during_writes += any(run.checkpoints.glob(".writing_*"))
        if codes[victim] not in (0, -signal.SIGKILL):
            tally.faults.append(f"a sitting ended with {codes}: see {log}")
        tally.faults += _lost(run, before)
        for store in folder.glob("store_*"):
            store.unlink()
        if codes == [0] * processes:
            tally.runs += 1
            tally.faults += _different(whole, run)
            shutil.rmtree(run.path)
    if run.path.exists():
        if (codes := _wait(_sitting(name, run.path, processes, log))) != [0] * processes:
            tally.faults.append(f"the last sitting ended with {codes}: see {log}")
        else:
            tally.runs += 1
            tally.faults += _different(whole, run)
    return tally


_painted_once = cache(SyntheticFaces.__getitem__)


@cache
def _prepare(name: str) -> None:
    """What all sittings of a case share: what is imported, compiled and painted by a whole training."""
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    backbones.BACKBONES["toy"] = Toy
    SyntheticFaces.__getitem__ = _painted_once  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(load_config(None, [*COMMON, *CASES[name]]), folder)
    gc.collect()


def _sitting(
    name: str, run: Path, processes: int, log: Path, kill: tuple[int, int] | None = None
) -> list[int]:
    """Start the processes of a sitting; ``kill`` is (rank, number of the change at which it ends)."""
    store = tempfile.mktemp(prefix="store_", dir=run.parent)
    sys.stdout.flush()
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            at = kill[1] if kill and kill[0] == rank else 0
            _run(name, run, Dist(rank, processes), log, store, at)
        pids.append(pid)
    return pids


def _run(name: str, run: Path, dist: Dist, log: Path, store: str, kill_at: int) -> None:
    """The life of a forked process."""
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        if dist.world_size > 1:
            td.init_process_group(
                "gloo", init_method=f"file://{store}", rank=dist.rank, world_size=dist.world_size
            )
        if kill_at:
            _kill_at(run, kill_at)
        train(load_config(None, [*COMMON, *CASES[name]]), run, dist)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _kill_at(run: Path, number: int) -> None:
    """SIGKILL for this process before its n-th change of the file system below the run's folder."""
    left = number
    fsync = os.fsync

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else False
            if writes and isinstance(path, str) and path.startswith(str(run)):
                count()
        elif event in _CHANGES:
            count()

    def counted(handle: int) -> None:
        count()
        fsync(handle)

    os.fsync = counted
    sys.addaudithook(hook)


def _wait_for_end(pids: list[int], victim: int, together: bool) -> list[int]:
    """Exit codes; when one process was killed, the others are as well, or end by themselves."""
    codes: dict[int, int] = {}
    began, ended = time.monotonic(), 0.0
    while len(codes) < len(pids):
        for rank, pid in enumerate(pids):
            if rank not in codes and (done := os.waitpid(pid, os.WNOHANG))[0]:
                codes[rank] = os.waitstatus_to_exitcode(done[1])
                ended = time.monotonic()
        late = time.monotonic() - began > _MOST_S
        if late or (codes.get(victim, 0) != 0 and (together or time.monotonic() - ended > 5)):
            for rank in set(range(len(pids))) - codes.keys():
                os.kill(pids[rank], signal.SIGKILL)
        time.sleep(0.002)
    return [codes[rank] for rank in range(len(pids))]


def _wait(pids: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def _lost(run: RunDir, before: int) -> list[str]:
    """What a kill cost: a checkpoint that was there before, or the newest one being damaged."""
    steps = run.steps()
    if before > (steps or [0])[-1]:
        return [f"the checkpoint of step {before} is gone: {steps}"]
    try:
        return newest_whole(run, Dist(), Checksums())[1]
    except ValueError as error:
        return [str(error)]


def _different(whole: RunDir, run: RunDir) -> list[str]:
    found = [
        one
        for one in differences(whole.path, run.path)
        if not one.startswith(("metrics.jsonl", "only in one run: .", "only in one run: eval/."))
    ]
    rows, others = (
        [
            {key: value for key, value in row.items() if key not in CLOCK}
            for row in one.read_metrics()
            if row["kind"] != "start"
        ]
        for one in (whole, run)
    )
    return found + (["metrics.jsonl differs"] if rows != others else [])


def main() -> None:
    """Run campaigns and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("cases", nargs="*", help=f"of: {', '.join(CASES)}; all by default")
    parser.add_argument("--kills", type=int, default=100, help="of each case")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where the runs go; a temporary folder by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        failed = False
        for name in given.cases or CASES:
            tally = campaign(name, given.processes, given.kills, folder, given.seed)
            print(f"{name}, {given.processes} process(es): {tally}", flush=True)
            for fault in tally.faults or []:
                print(f"  {fault}", flush=True)
            failed |= bool(tally.faults)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
