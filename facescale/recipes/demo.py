"""The whole pipeline on synthetic faces: train, evaluate, export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from facescale.config import Config
from facescale.config.packaged import FOLDER
from facescale.distributed import Dist
from facescale.evaluate.run_protocols import evaluate
from facescale.export.write import ExportReport, export
from facescale.plan import Plan
from facescale.plan.check import read_config
from facescale.train import Result, train


def demo_config(settings: list[str]) -> Config:
    """The config of the demo, with ``settings`` on top."""
    return read_config(FOLDER / "demo.toml", settings)


def demo(
    run_path: Path, settings: list[str], dist: Dist, on_log: Callable[[dict[str, Any], Plan], None] | None
) -> tuple[Result, Path | None, ExportReport | None]:
    """Train (or continue) the demo run, measure it, write its report and an ONNX file.

    Returns:
        The training's result; the report and the export, or None when the training was stopped early
        and on all processes but the main one.
    """
    result = train(demo_config(settings), run_path, dist, on_log)
    if not result.finished:
        return result, None, None
    device = str(dist.device)
    _, report = evaluate(run_path, [], None, pictures=True, batch_size=128, device=device, dist=dist)
    if not dist.is_main:
        return result, None, None
    # The report above has the accuracy; to measure the file's takes as long as a tenth of the training
    return result, report, export(run_path, result.run.exports / "model.onnx", check=[])
