"""The commands ``facescale evaluate`` and ``facescale report``."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from facescale.config import load_config
from facescale.distributed import Dist
from facescale.evaluate.adopt import adopt, adoptable_thresholds
from facescale.evaluate.analyses import Grouping, analysed
from facescale.evaluate.attributes import Attribute
from facescale.evaluate.embedding import Extraction
from facescale.evaluate.feature_cache import FeatureCache
from facescale.evaluate.figures import Result
from facescale.evaluate.protocols.open import open_protocol
from facescale.evaluate.records import MeasuredModel, Record, newest_of_each, read_records, write_record
from facescale.evaluate.report.page import write_report
from facescale.evaluate.verification import Verification
from facescale.evaluate.verification_result import VerificationResult
from facescale.guard.reading import read_object
from facescale.inference.load import load, weights_of
from facescale.inference.model import Model
from facescale.inference.torch_encoder import TorchEncoder
from facescale.run import RunDir


@dataclass(frozen=True)
class Evaluation:
    """Results of a model, not yet written.

    Attributes:
        path: run folder or weights, as given.
        weights: the file that was measured.
        run: the run that the weights belong to, if any.
        model: the weights.
        measured: which they are.
        results: one for each protocol.
    """

    path: Path
    weights: Path
    run: RunDir | None
    model: Model
    measured: MeasuredModel
    results: Sequence[Result]

    def adopt(self, fars: Sequence[float] = ()) -> list[float]:
        """Write the thresholds of the one protocol into the weights file; returns their false-accept rates.

        Raises:
            ValueError: several protocols, a rate that the protocol does not support, a file without a place.
        """
        if len(self.results) != 1:
            raise ValueError(
                f"{len(self.results)} protocols were measured; name the one to adopt from with --on"
            )
        thresholds = adoptable_thresholds(self.results[0], fars)
        adopt(self.weights, thresholds)
        return sorted(thresholds, reverse=True)

    def page(self, out: Path | None) -> Path:
        """Where the page goes: ``out``, else the run's, else beside the weights."""
        return out or (self.run.report if self.run else self.path.with_name("report.html"))

    def write(self, out: Path | None = None, pictures: bool = True) -> Path:
        """Add the results to those that are kept, and write the page of all of them.

        They are kept in ``results/`` of the run, or beside the weights; where that is not allowed, beside
        ``out``.

        Args:
            out: the page; by default ``report.html`` of the run, or beside the weights.
            pictures: show the hardest pairs.

        Raises:
            OSError: a place where nothing can be written.
        """
        home = self.run.path if self.run else self.path.parent
        records = [Record.of(result, self.measured, pictures) for result in self.results]
        folder = home / "results"
        try:
            _keep(folder, records)
        except OSError:
            if out is None:
                raise
            folder = out.parent / "results"
            _keep(folder, records)
        page = self.page(out)
        shown = newest_of_each(read_records(folder), self.measured.checkpoint)
        history = self.run.read_metrics() if self.run else []
        write_report(
            page,
            _in_order(shown, [result.name for result in self.results]),
            history,
            str(self.path),
            run_info(self.run, self.model.info),
            everything=read_records(folder),
            pictures=pictures,
        )
        return page


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
) -> tuple[Sequence[Result], Path]:
    """Measure a model, keep the results and write its report: `measure`, then `Evaluation.write`.

    Of several processes, the main one writes.

    Raises:
        ValueError: no model, no protocol, two of one name, or one that cannot be read.
    """
    done = measure(model_path, on, batch_size, device, cache, limit, dist)
    page = done.page(out) if dist and not dist.is_main else done.write(out, pictures)
    return done.results, page


def measure(
    model_path: Path,
    on: Sequence[tuple[str, str]],
    batch_size: int,
    device: str,
    cache: bool = True,
    limit: int | None = None,
    dist: Dist | None = None,
    contract: str | None = None,
    fars: Sequence[float] = (),
    grouping: Grouping | None = None,
    quality: Attribute | None = None,
) -> Evaluation:
    """Measure a model on protocols; nothing is written but embeddings.

    Args:
        model_path: run folder or weights.
        on: (name, path) of each protocol, the name may be empty; without any, those of the run's config.
        batch_size: images per forward pass.
        device: where to compute.
        cache: keep the embeddings in the run folder, and use those that are there.
        limit: measure on a part of each protocol, at most that large; see the guide.
        dist: this process among its peers, each of which embeds a share.
        contract: how a file of another project wants its images; see `facescale.inference.load.load`.
        fars: false-accept rates of pair protocols; by default 1e-1 to 1e-6.
        grouping: groups of people whose errors are counted apart.
        quality: of each image, for the error-versus-discard curve.

    Raises:
        ValueError: no model, no protocol, two of one name, one that cannot be read, or one that the groups
            or qualities do not fit.
    """
    if not model_path.exists():
        raise ValueError(f"'{model_path}' does not exist; name a run folder or a weights file")
    run = run_of(model_path)
    if not on:
        if run is None:
            raise ValueError(
                f"'{model_path}' is not a run with a config; name the protocols with --on NAME=PATH"
            )
        on = list(load_config(run.config).eval.sets.items())
    weights = weights_of(model_path)
    model = load(weights, device, contract=contract)
    protocols = [
        open_protocol(path, model.contract.size, model.needs_flip, batch_size, name=name, limit=limit)
        for name, path in on
    ]
    _check_names([protocol.name for protocol in protocols])
    if fars:
        protocols = [
            replace(one, fars=tuple(fars)) if isinstance(one, Verification) else one for one in protocols
        ]
    extraction = Extraction(features_of(run, model) if cache and run else None, dist)
    found: list[Result] = [protocol.measure(model.encoder, extraction) for protocol in protocols]
    if model.contract.resize != "none":  # the model was trained on scaled images, too
        found = [replace(one, scaled={}) if isinstance(one, VerificationResult) else one for one in found]
    results = analysed(found, grouping, quality)
    measured = _measured(model, model_path, weights, run)
    return Evaluation(model_path, weights, run, model, measured, results)


def run_of(path: Path) -> RunDir | None:
    """The run that a path is, or that a checkpoint or its weights file lies in."""
    places = [path, *path.absolute().parents[1:3]]
    return next((RunDir(place) for place in places if _holds(RunDir(place), path)), None)


def _holds(run: RunDir, path: Path) -> bool:
    is_checkpoint = run.checkpoints.absolute() in path.absolute().parents
    return run.config.is_file() and (run.path == path or is_checkpoint)


def _measured(model: Model, path: Path, weights: Path, run: RunDir | None) -> MeasuredModel:
    name = path.name if run is None else weights.parent.name
    step = "" if run is None else name.rpartition("_")[2]
    return MeasuredModel.of(model.card, model.fingerprint, name, int(step) if step.isdigit() else None)


def features_of(run: RunDir, model: Model) -> FeatureCache | None:
    """The embeddings that a run folder keeps of its network; of an exported graph it keeps none."""
    if not isinstance(model.encoder, TorchEncoder):
        return None
    return FeatureCache(run.features, model.cache_key())


def _check_names(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f"{count} protocols are called '{name}'; tell them apart with --on NAME=PATH")


def _keep(folder: Path, records: Sequence[Record]) -> None:
    for record in records:
        write_record(folder, record)


def _in_order(records: Sequence[Record], first: Sequence[str]) -> list[Record]:
    """Records of the protocols just measured, in their order, then the others."""
    place = {name: number for number, name in enumerate(first)}
    return sorted(records, key=lambda record: place.get(record.name, len(place)))


def report(run_path: Path, out: Path | None, pictures: bool = True) -> Path:
    """Write the page of a run from its log and from everything that was measured.

    Each protocol is shown for the best checkpoint, or else for the last one that was measured.

    Raises:
        ValueError: no run, or one that has logged nothing yet.
    """
    run = RunDir.open(run_path)
    page = out or run.report
    records = read_records(run.results)
    best = run.best()
    shown = newest_of_each(records, run.snapshot(best["step"]).name if best else None)
    info = run_info(run, {})
    write_report(page, shown, run.read_metrics(), str(run_path), info, everything=records, pictures=pictures)
    return page


def run_info(run: RunDir | None, model_info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a page says of a run: plan, config, model, versions."""
    info: dict[str, dict[str, Any]] = {}
    if run is not None:
        if run.plan.is_file():
            info["Plan"] = read_object(run.plan, "the plan", advice="delete it: the report does without")
        config = load_config(run.config).model_dump(mode="json")
        info["Config"] = {f"{part}.{key}": v for part, keys in config.items() for key, v in keys.items()}
    if model_info:
        info["Model"] = dict(model_info)
    info["Versions"] = {"torch": torch.__version__}
    return info
