"""What was measured, kept: one JSON file for each protocol and checkpoint; none replaces another."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from facescale.evaluate.figures import Result, analysis_notes
from facescale.files import write_atomically
from facescale.guard.limits import JSON_BYTES
from facescale.guard.reading import read_text
from facescale.model_card import Card

FORMAT = 1
ON_REQUEST = ("groups", "transfer")  # analyses that an evaluation has only where they are asked for
# What makes two measurements of one checkpoint different ones.
_SETTING = ("name", "kind", "source", "counts", "images", "genuine_pairs", "impostor_pairs", "flip", "rule")


@dataclass(frozen=True)
class MeasuredModel:
    """Which weights a record is of.

    Attributes:
        checkpoint: folder of the checkpoint in its run, or name of the weights file.
        fingerprint: of the weights and their preprocessing.
        step: optimizer steps of the training; None where unknown.
        backbone: name of the network; "" for a graph.
        data: what it was trained on, as far as the weights say.
        licence: of the weights, as far as they say.
        contract: how images were prepared, in words.
    """

    checkpoint: str
    fingerprint: str
    step: int | None = None
    backbone: str = ""
    data: str = ""
    licence: str = ""
    contract: str = ""

    @classmethod
    def of(cls, card: Card, fingerprint: str, checkpoint: str, step: int | None) -> "MeasuredModel":
        """From what the weights say of themselves."""
        info = card.info
        stated = step if step is not None else info.get("step")
        return cls(
            checkpoint=checkpoint,
            fingerprint=fingerprint,
            step=stated if isinstance(stated, int) else None,
            backbone=str((card.backbone or {}).get("name", "")),
            data=_words(info.get("data", info.get("origin", ""))),
            licence=_words(info.get("licence", info.get("license", ""))),
            contract=card.contract.words(),
        )


@dataclass(frozen=True)
class Record:
    """One measurement.

    Attributes:
        model: the weights.
        result: what the evaluator's ``to_dict`` gave; ``name`` and ``kind`` are always there.
        figures: scalars by name.
        curves: what a page draws, by kind of curve.
        hardest: the pairs with the most extreme scores, by kind.
        time: when it was measured, ISO 8601.
    """

    model: MeasuredModel
    result: Mapping[str, Any]
    figures: Mapping[str, float]
    curves: Mapping[str, Any] = field(default_factory=dict)
    hardest: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    time: str = ""

    @property
    def name(self) -> str:
        """Of the protocol."""
        return str(self.result["name"])

    @classmethod
    def of(cls, result: Result, model: MeasuredModel, pictures: bool = False) -> "Record":
        """Record of a result just measured, with or without the pictures of its hardest pairs."""
        return cls(
            model,
            result.to_dict(),
            dict(result.figures()),
            result.curves(),
            result.hardest(pictures),
            datetime.now().astimezone().isoformat(timespec="seconds"),
        )

    def file_name(self) -> str:
        """The same for the same protocol, setting and checkpoint."""
        setting = {key: self.result[key] for key in _SETTING if key in self.result}
        digest = hashlib.sha256(json.dumps(setting, sort_keys=True, default=str).encode()).hexdigest()[:8]
        return f"{_slug(self.model.checkpoint)}.{_slug(self.name)}-{digest}.json"


def write_record(folder: Path, record: Record) -> Path:
    """Write a record into ``folder`` atomically; only the same measurement of that checkpoint is replaced.

    Errors by group and thresholds of other sets that were asked for before stay with it.
    """
    path = folder / record.file_name()
    if path.is_file():
        with suppress(ValueError):  # a damaged one is replaced
            record = _with_analyses_of(_read(path), record)
    write_atomically(path, json.dumps({"format": FORMAT, **asdict(record)}, default=str))
    return path


def read_records(folder: Path) -> list[Record]:
    """All records in ``folder``, by step, then by time.

    Raises:
        ValueError: a file is damaged or of another version.
    """
    records = [_read(path) for path in sorted(folder.glob("*.json"))]
    return sorted(records, key=lambda one: (one.model.step or 0, one.time))


def _read(path: Path) -> Record:
    try:
        tree = json.loads(read_text(path, "the result", JSON_BYTES))
        if tree.pop("format") != FORMAT:
            raise ValueError("it is of another version of facescale")
        record = Record(**{**tree, "model": MeasuredModel(**tree["model"])})
        record.file_name()
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"the result '{path}' cannot be read ({error}); delete it, and measure it again"
        ) from None
    return record


def _with_analyses_of(before: Record, record: Record) -> Record:
    """``record`` with what was worked out of the same scores before, and was not asked for again."""
    kept = {
        key: before.result[key] for key in ON_REQUEST if key in before.result and key not in record.result
    }
    if before.model.fingerprint != record.model.fingerprint or not kept:
        return record
    notes = [f"{record.name}: {note}" for note in analysis_notes(kept)]
    return replace(record, result={**record.result, **kept, "notes": [*record.result["notes"], *notes]})


def newest_of_each(records: Sequence[Record], checkpoint: str | None = None) -> list[Record]:
    """One record for each protocol: of ``checkpoint`` if it has one, else the last in order."""
    chosen: dict[str, Record] = {}
    for record in records:
        before = chosen.get(record.name)
        if before is None or record.model.checkpoint == checkpoint or before.model.checkpoint != checkpoint:
            chosen[record.name] = record
    return list(chosen.values())


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]


def _words(value: Any) -> str:
    return " + ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
