"""The commands ``facescale evaluate`` and ``facescale report``."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from facescale.config import load_config
from facescale.distributed import Dist
from facescale.evaluate.embedding import Extraction
from facescale.evaluate.feature_cache import FeatureCache
from facescale.evaluate.figures import Result
from facescale.evaluate.protocols.open import open_protocol
from facescale.evaluate.report.page import write_report
from facescale.files import read_json
from facescale.inference.load import load
from facescale.inference.model import Model
from facescale.inference.torch_encoder import TorchEncoder
from facescale.run import RunDir


def evaluate(
    model_path: Path,
    on: Sequence[tuple[str, str]],
    out: Path | None,
    pictures: bool,
    batch_size: int,
    device: str,
    cache: bool = True,
    limit: int | None = None,
    dist: Dist | None = None,
) -> tuple[list[Result], Path]:
    """Measure a model and write its report.

    Args:
        model_path: run folder or weights.
        on: (name, path) of each protocol, the name may be empty; without any, those of the run's config.
        out: the page; by default ``report.html`` of the run, or beside the weights.
        pictures: show the hardest pairs.
        batch_size: images per forward pass.
        device: where to compute.
        cache: keep the embeddings in the run folder, and use those that are there.
        limit: measure on a part of each protocol, at most that large; see the guide.
        dist: this process among its peers, each of which embeds a share; the main one writes the report.

    Raises:
        ValueError: no model, no protocol, two of one name, or one that cannot be read.
    """
    if not model_path.exists():
        raise ValueError(f"'{model_path}' does not exist; name a run folder or a weights file")
    run = RunDir(model_path) if (model_path / "config.toml").is_file() else None
    if not on:
        if run is None:
            raise ValueError(
                f"'{model_path}' is not a run with a config; name the protocols with --on NAME=PATH"
            )
        on = list(load_config(run.config).eval.sets.items())
    model = load(model_path, device)
    protocols = [
        open_protocol(path, model.contract.size, model.needs_flip, batch_size, name=name, limit=limit)
        for name, path in on
    ]
    _check_names([protocol.name for protocol in protocols])
    extraction = Extraction(_features(run, model) if cache and run else None, dist)
    results: list[Result] = [protocol.measure(model.encoder, extraction) for protocol in protocols]
    page = out or (run.report if run else model_path.with_name("report.html"))
    if dist is None or dist.is_main:
        history = run.read_metrics() if run else []
        write_report(page, results, history, str(model_path), _info(run, model.info), pictures=pictures)
    return results, page


def _features(run: RunDir, model: Model) -> FeatureCache | None:
    if not isinstance(model.encoder, TorchEncoder):
        return None
    return FeatureCache(run.features, {"weights": model.weights_digest(), "computed": model.encoder.setting})


def _check_names(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{count} protocols are called '{name}'; tell them apart with --on NAME=PATH")


def report(run_path: Path, out: Path | None) -> Path:
    """Write the page of a run from its log."""
    run = RunDir.open(run_path)
    page = out or run.report
    write_report(page, [], run.read_metrics(), str(run_path), _info(run, {}))
    return page


def _info(run: RunDir | None, model_info: Any) -> dict[str, dict[str, Any]]:
    info: dict[str, dict[str, Any]] = {}
    if run is not None:
        if run.plan.is_file():
            info["Plan"] = read_json(run.plan, dict, "delete it: the report does without")
        config = load_config(run.config).model_dump(mode="json")
        info["Config"] = {f"{part}.{key}": v for part, keys in config.items() for key, v in keys.items()}
    if model_info:
        info["Model"] = dict(model_info)
    info["Versions"] = {"torch": torch.__version__}
    return info
