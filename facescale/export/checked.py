"""Write a file, read it back, and keep it only if it embeds and recognises as the network does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from facescale.arrays import Pixels
from facescale.evaluate.embedding import Extraction
from facescale.evaluate.thresholds import thresholds_of
from facescale.export.accuracy import Accuracy, as_info, compare_accuracy, measure, require_accuracy
from facescale.export.parity import ParityError, compare
from facescale.files import replacing
from facescale.inference.model import Model
from facescale.model_card import Card, Threshold

_TOLERANCE = (1e-4, 0.99999)  # relative difference, cosine; observed 4e-6 where an export is right
_HALF_TOLERANCE = (2e-2, 0.9995)
_INT8_TOLERANCE = (0.5, 0.9)  # a coarse net for broken files; what int8 costs, the accuracy says
PRECISIONS = {"fp32": _TOLERANCE, "fp16": _HALF_TOLERANCE, "int8": _INT8_TOLERANCE}
MAX_DROP = 0.005  # of accuracy: 30 of the 6,000 pairs of LFW


class Form(Protocol):
    """A kind of file that holds a network.

    Attributes:
        writer: what made it, in words.
    """

    writer: str

    def save(self, path: Path, card: Card) -> None:
        """Write the file."""
        ...

    def open(self, path: Path) -> Model:
        """The file as a model."""
        ...


@dataclass(frozen=True)
class Checks:
    """What a file is held against.

    Attributes:
        faces_NHW3: of the size that the file takes; their embeddings are compared.
        faces_are: the same in words.
        protocols: (name, path) of those that accuracy is measured on.
        max_drop: how much the figure of a protocol may fall.
        coarse: weights were rounded to fp16, or pixels to grey levels on a second way.
        thresholds: from the caller; None: measured where the file's precision changes the scores.
        known: where embeddings of the network are kept.
    """

    faces_NHW3: Pixels
    faces_are: str
    protocols: Sequence[tuple[str, str]] = ()
    max_drop: float = MAX_DROP
    coarse: bool = False
    thresholds: Mapping[float, Threshold] | None = None
    known: Extraction | None = None


@dataclass(frozen=True)
class Found:
    """How a file compares with its network.

    Attributes:
        difference: largest relative difference of a number of an embedding.
        cosine: the smallest between the two embeddings of a face.
        accuracy: on each protocol.
        num_bytes: size of the file.
    """

    difference: float
    cosine: float
    accuracy: tuple[Accuracy, ...]
    num_bytes: int


def write_checked(form: Form, out: Path, network: Model, card: Card, checks: Checks) -> Found:
    """Write ``out`` with its card, which also says the accuracy, if the checks allow it.

    Raises:
        ParityError: the embeddings of the file differ.
        AccuracyError: the file is less accurate.
    """
    precision = card.graph.precision if card.graph else "fp32"
    allowed = _HALF_TOLERANCE if checks.coarse else PRECISIONS[precision]
    with replacing(out) as temporary:
        form.save(temporary, card)
        written = form.open(temporary)
        difference, cosine = compare(network, written, checks.faces_NHW3)
        _require_parity(form.writer, (difference, cosine), allowed, f"{checks.faces_are}; '{out}'")
        results = measure(written, checks.protocols)
        accuracy = compare_accuracy(measure(network, checks.protocols, checks.known), results)
        require_accuracy(accuracy, checks.max_drop, out)
        if accuracy:
            card = replace(card, info={**card.info, "accuracy": as_info(accuracy)})
            if precision != "fp32" and checks.thresholds is None:  # the network's are for other scores
                card = replace(card, thresholds=thresholds_of(results) or {})
            form.save(temporary, card)
        return Found(difference, cosine, tuple(accuracy), temporary.stat().st_size)


def _require_parity(
    writer: str, found: tuple[float, float], allowed: tuple[float, float], where: str
) -> None:
    difference, cosine = found
    if not (difference <= allowed[0] and cosine >= allowed[1]):  # so that NaN fails too
        raise ParityError(
            f"the embeddings of the {writer} file differ from those of the network: relative difference"
            f" {difference:.2g} (allowed {allowed[0]:g}), cosine down to {cosine:.6f} (allowed"
            f" {allowed[1]:g}), on {where} was not written; try another opset or format"
        )
