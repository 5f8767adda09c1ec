"""What a training waits for its checkpoints: written at once, in the background, and the checksums' share.

    python benchmarks/checkpoints.py [--ids 200000] [--rounds 3] [--interval 1000]

Two short trainings on synthetic faces that save every few steps, each at once and in the background in turn.
"network": mbf at 112 pixels, few identities. "centres": a small network with ``ids`` class centres in memory.
A share is the time of one checkpoint over that of ``interval`` steps, by the median step of the same run.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from facescale.checksums import Checksums
from facescale.config import load_config
from facescale.run import RunDir
from facescale.train import train
from facescale.train.saver import Saver

SAVED = 3  # checkpoints of a training
COMMON = ["eval.every=100%", "eval.sets={}", "train.log_every=1", "checkpoint.keep=1"]
NETWORK = ["data.train=synthetic:ids=60,images=4", "backbone.name=mbf", "train.batch_size=32"]
NETWORK += ["train.duration=9 steps", "checkpoint.every=3 steps"]
CENTRES = ["backbone.name=mbf_s", "backbone.input_size=56", "head.name=partial_fc", "head.rate=0.1"]
CENTRES += ["train.batch_size=128", "train.duration=15 steps", "checkpoint.every=5 steps"]


class Timed:
    """Sums the wall time of a method while a block runs."""

    def __init__(self, owner: type, *names: str) -> None:
        self.seconds, self._owner, self._names, self._depth = 0.0, owner, names, 0

    def __enter__(self) -> "Timed":
        self._old = {name: getattr(self._owner, name) for name in self._names}
        for name, method in self._old.items():
            setattr(self._owner, name, self._timing(method))
        return self

    def __exit__(self, *_: object) -> None:
        for name, method in self._old.items():
            setattr(self._owner, name, method)

    def _timing(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            self._depth += 1
            began = time.monotonic()
            try:
                return method(*arguments)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.monotonic() - began

        return timed


def measure(settings: list[str], background: bool) -> dict[str, float]:
    """Seconds of a checkpoint (wait of the training, checksums) and of a step, and bytes."""
    words = [*COMMON, *settings, f"checkpoint.background={str(background).lower()}"]
    with (
        tempfile.TemporaryDirectory() as folder,
        Timed(Saver, "save", "finish", "poll") as waits,
        Timed(Checksums, "of") as sums,
    ):
        run: RunDir = train(load_config(None, words), Path(folder) / "run").run
        batch, rows = run.read_metrics("start")[0]["process_batch"], run.read_metrics("train")
        files = [path for path in run.snapshot(run.steps()[-1]).rglob("*") if path.is_file()]
        size = sum(path.stat().st_size for path in files)
    return {
        "wait": waits.seconds / SAVED,
        "checksums": sums.seconds / SAVED,
        "step": median(batch / row["images_per_s"] for row in rows[1:]),
        "bytes": float(size),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ids", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--interval", type=int, default=1000, help="steps between two checkpoints")
    args = parser.parse_args()
    centres = [f"data.train=synthetic:ids={args.ids},images=1,size=56", *CENTRES]
    for name, settings in (("network", NETWORK), ("centres", centres)):
        for _ in range(args.rounds):
            at_once, later = measure(settings, False), measure(settings, True)
            between = at_once["step"] * args.interval
            print(
                f"{name:8} {at_once['bytes'] / 1e6:7.1f} MB  interval {between:8.1f} s"
                f"  wait at once {at_once['wait']:6.3f} s {at_once['wait'] / between:7.3%}"
                f"  in the background {later['wait']:6.3f} s {later['wait'] / at_once['wait']:5.2f}x"
                f"  checksums {at_once['checksums']:6.3f} s {at_once['checksums'] / between:7.4%}"
                f" of the training, {at_once['checksums'] / at_once['wait']:6.2%} of the wait",
                flush=True,
            )


if __name__ == "__main__":
    main()
