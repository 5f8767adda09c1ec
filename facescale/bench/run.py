"""Compare ours with a plain PyTorch way, each in a process of its own, in turn."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import simplejpeg

from facescale.bench.stages import Figures, Stage
from facescale.data import open_reader
from facescale.data.loading.decode import decode
from facescale.data.synthetic.faces import SCHEME
from facescale.data.writers.recordio import record_file
from facescale.plan.units import amount

WAYS = {"train": ("ours", "plain"), "loader": ("ours", "plain", "decode"), "evaluate": ("ours", "plain")}


@dataclass(frozen=True)
class Comparison:
    """Figures of one stage.

    Attributes:
        stage: what was measured.
        figures: by way, one for each round: images_per_s, peak_bytes, data_share of trainings.
    """

    stage: Stage
    figures: dict[str, list[Figures]]

    def median(self, way: str, name: str) -> float:
        """Median of a figure over the rounds."""
        return median(figures[name] for figures in self.figures[way])

    @property
    def ratio(self) -> float:
        """Images a second of ours over those of the plain way: median of the rounds' ratios."""
        pairs = zip(self.figures["ours"], self.figures["plain"], strict=True)
        return median(ours["images_per_s"] / plain["images_per_s"] for ours, plain in pairs)

    def row(self) -> dict[str, Any]:
        """As a row of a table."""
        cells: dict[str, Any] = {"backbone": self.stage.backbone} if self.stage.backbone else {}
        cells |= {
            "batch": self.stage.batch_size,
            "images/s": f"{self.median('ours', 'images_per_s'):.1f}",
            "plain PyTorch": f"{self.median('plain', 'images_per_s'):.1f}",
            "ratio": f"{self.ratio:.2f}",
        }
        if "decode" in self.figures:
            cells["decoder alone"] = f"{self.median('decode', 'images_per_s'):.1f}"
        if self.stage.kind == "train":
            cells["waits for data"] = f"{self.median('ours', 'data_share'):.0%}"
        memory = {way: amount(round(self.median(way, "peak_bytes"))) for way in ("ours", "plain")}
        return cells | {"memory": memory["ours"], "plain memory": memory["plain"]}

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "ratio": self.ratio}


@contextmanager
def packed(data: str) -> Iterator[str]:
    """Drawn images as JPEGs in a temporary record file, since drawing would be measured; others as they are.

    Raises:
        ValueError: the data cannot be read.
    """
    reader = open_reader(data)
    if not data.startswith(f"{SCHEME}:"):
        yield data
        return
    with TemporaryDirectory() as folder:
        path = Path(folder) / "train.rec"
        with record_file(path) as records:
            for key in range(len(reader)):
                image, identity = reader[key]
                records.append(key, (identity,), simplejpeg.encode_jpeg(decode(image), quality=95))
        yield str(path)


def bench_stages(stages: Sequence[Stage], rounds: int) -> Iterator[Comparison]:
    """Each stage in every way, the ways in turn, in processes of their own.

    Args:
        stages: what to measure.
        rounds: of all ways of a stage; other work on the machine meets all of them.

    Raises:
        RuntimeError: a measurement failed; the message says why.
    """
    for stage in stages:
        figures: dict[str, list[Figures]] = {way: [] for way in WAYS[stage.kind]}
        for _ in range(rounds):
            for way, found in figures.items():
                found.append(_in_a_process(replace(stage, way=way)))
        yield Comparison(stage, figures)


def _in_a_process(stage: Stage) -> Figures:
    command = [sys.executable, "-m", "facescale.bench.stages", json.dumps(asdict(stage))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["nothing was printed"])[-1]
        raise RuntimeError(f"measuring {stage.kind} ({stage.way}, {stage.backbone}) failed: {last}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures
