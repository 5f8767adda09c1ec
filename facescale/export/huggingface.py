"""A folder as the Hugging Face hub lays out models: weights, config.json, a model card made from the run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import facescale
from facescale.arrays import Pixels
from facescale.evaluate.thresholds import thresholds_of
from facescale.export.accuracy import measure, protocols_of
from facescale.export.hub_card import BY_HAND, by_hand, model_card, without_folders
from facescale.export.write import export
from facescale.files import write_atomically
from facescale.inference.load import load
from facescale.inference.model import Model


@dataclass(frozen=True)
class Hub:
    """What was written.

    Attributes:
        folder: with ``model.safetensors``, ``config.json`` and ``README.md``.
        name: of the model.
        licence: as the card states it.
        figures: value by NAME/FIGURE, as measured for the card.
        to_fill_in: headings of the card that a person still has to write below.
    """

    folder: str
    name: str
    licence: str
    figures: Mapping[str, float]
    to_fill_in: tuple[str, ...]


def write_hub(
    model: Model | str | Path,
    folder: str | Path,
    *,
    licence: str = "",
    images: str | Path | Pixels | None = None,
    check: Sequence[str] | None = None,
    info: Mapping[str, Any] | None = None,
) -> Hub:
    """Write a folder for the hub; `facescale.load` reads it.

    No path of this machine goes into it: data sets are named by the last part of theirs. What a person wrote
    into the sections of an earlier card that are filled in by hand stays.

    Args:
        model: a model, or what `facescale.load` takes; of a run, the card tells how it was trained.
        folder: made if absent; its name is the model's.
        licence: identifier, such as "cc-by-nc-4.0"; empty: the card says that none was stated.
        images: faces for the comparison of embeddings, as for `facescale.export.write.export`.
        check: protocols to measure, ``NAME=PATH`` each; by default the run's evaluation sets.
        info: added to that of the model.

    Raises:
        ValueError: a network that was not built by name, or a protocol that cannot be read.
    """
    folder = Path(folder)
    run = None
    if not isinstance(model, Model):
        run, model = model, load(model, device="cpu")
    results = measure(model, protocols_of(check, run))
    told = {**model.info, **(info or {}), **({"licence": licence} if licence else {})}
    thresholds = thresholds_of(results)
    card = replace(
        model.card,
        info={key: without_folders(value) if key == "data" else value for key, value in told.items()},
        thresholds=model.thresholds if thresholds is None else thresholds,
    )
    named = Model(model.encoder, card)
    export(named, folder / "model.safetensors", images=images, check=())
    tree = json.loads(replace(card, fingerprint=model.fingerprint).to_json())
    config = {"library_name": "facescale", "facescale_version": facescale.__version__, **tree}
    write_atomically(folder / "config.json", json.dumps(config, indent=1))
    page = folder / "README.md"
    written = by_hand(page.read_text(encoding="utf-8", errors="replace")) if page.is_file() else {}
    write_atomically(page, model_card(folder.name, named, results, run, written))
    figures = {f"{one.name}/{key}": value for one in results for key, value in one.figures()}
    licence = str(told.get("licence", "")) or "not stated"
    to_fill_in = tuple(heading for heading in BY_HAND if heading not in written)
    return Hub(str(folder), folder.name, licence, figures, to_fill_in)
