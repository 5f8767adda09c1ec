"""Accuracy of an exported file on verification protocols, beside that of its network."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from facescale.config import load_config
from facescale.data.spec import split_name
from facescale.evaluate.embedding import Extraction
from facescale.evaluate.figures import Result
from facescale.evaluate.protocols.open import open_protocol
from facescale.evaluate.run_protocols import features_of, run_of
from facescale.inference.model import Model
from facescale.run import RunDir


class AccuracyError(RuntimeError):
    """An exported file is less accurate than its network by more than is allowed; it was not written."""


@dataclass(frozen=True)
class Accuracy:
    """The main figure of a protocol for the network and for the file.

    Attributes:
        protocol: its name.
        figure: what was measured, "accuracy" for pairs.
        network: before the export.
        file: after it.
    """

    protocol: str
    figure: str
    network: float
    file: float


def protocols_of(check: Sequence[str] | None, run: str | Path | None) -> list[tuple[str, str]]:
    """(name, path) of the protocols to measure on: those named, or those of the run that are there.

    Args:
        check: ``NAME=PATH`` or ``PATH`` each; None: the run's evaluation sets; empty: none.
        run: the run folder.
    """
    if check is not None:
        return [split_name(text) for text in check]
    config = RunDir(run).config if run else None
    if config is None or not config.is_file():
        return []
    found = []
    for name, path in load_config(config).eval.sets.items():
        try:
            open_protocol(path)
        except ValueError:
            continue  # it may lie on another machine
        found.append((name, path))
    return found


def known_to(run: str | Path | None, network: Model) -> Extraction:
    """The embeddings of the network that its run keeps, so that they are not computed again."""
    folder = run_of(Path(run)) if run else None
    return Extraction(features_of(folder, network) if folder else None)


def measure(
    model: Model, protocols: Sequence[tuple[str, str]], extraction: Extraction | None = None
) -> list[Result]:
    """Results of the model on each protocol."""
    size, flip = model.contract.size, model.needs_flip
    opened = (open_protocol(path, size, flip, name=name) for name, path in protocols)
    return [protocol.measure(model.encoder, extraction) for protocol in opened]


def compare_accuracy(before: Sequence[Result], after: Sequence[Result]) -> list[Accuracy]:
    """The first figure of each result."""
    pairs = []
    for one, other in zip(before, after, strict=True):
        figure, value = next(one.figures())
        pairs.append(Accuracy(one.name, figure, value, dict(other.figures()).get(figure, math.nan)))
    return pairs


def require_accuracy(found: Sequence[Accuracy], max_drop: float, out: Path) -> None:
    """Refuse a file that lost too much.

    Raises:
        AccuracyError: a figure fell by more than ``max_drop``, or is not a number.
    """
    for one in found:
        if not one.network - one.file <= max_drop:  # so that NaN fails too
            raise AccuracyError(
                f"the file's {one.figure} on {one.protocol} is {one.file:.2%} and the network's "
                f"{one.network:.2%}, a loss of more than {max_drop:.2%}; '{out}' was not written; use "
                "another precision or more calibration images, or allow more with max_drop"
            )


def as_info(found: Sequence[Accuracy]) -> dict[str, Any]:
    """What the card keeps of it."""
    return {one.protocol: {key: v for key, v in asdict(one).items() if key != "protocol"} for one in found}
