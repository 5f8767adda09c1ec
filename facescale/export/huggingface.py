"""A folder as the Hugging Face hub lays out models: weights, config.json, a model card made from the run."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w

import facescale
from facescale.arrays import Pixels
from facescale.config import load_config
from facescale.evaluate.figures import Result
from facescale.evaluate.thresholds import thresholds_of
from facescale.evaluate.verification_result import VerificationResult
from facescale.export.accuracy import measure, protocols_of
from facescale.export.write import export
from facescale.files import write_atomically
from facescale.inference.load import load
from facescale.inference.model import Model
from facescale.model_card import Card
from facescale.run import RunDir


@dataclass(frozen=True)
class Hub:
    """What was written.

    Attributes:
        folder: with ``model.safetensors``, ``config.json`` and ``README.md``.
        name: of the model.
        licence: as the card states it.
        figures: value by NAME/FIGURE, as measured for the card.
    """

    folder: str
    name: str
    licence: str
    figures: Mapping[str, float]


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

    No path of this machine goes into it: data sets are named by the last part of theirs.

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
        info={key: _nameless(value) if key == "data" else value for key, value in told.items()},
        thresholds=model.thresholds if thresholds is None else thresholds,
    )
    named = Model(model.encoder, card)
    export(named, folder / "model.safetensors", images=images, check=())
    tree = json.loads(replace(card, fingerprint=model.fingerprint).to_json())
    config = {"library_name": "facescale", "facescale_version": facescale.__version__, **tree}
    write_atomically(folder / "config.json", json.dumps(config, indent=1))
    write_atomically(folder / "README.md", model_card(folder.name, named, results, run))
    figures = {f"{one.name}/{key}": value for one in results for key, value in one.figures()}
    return Hub(str(folder), folder.name, str(told.get("licence", "")) or "not stated", figures)


def model_card(name: str, model: Model, results: Sequence[Result], run: str | Path | None = None) -> str:
    """README.md of a model, with the metadata that the hub reads at its top."""
    parts = [
        _front_matter(name, model.card, results),
        f"# {name}\n\nMaps an aligned face to a {model.embedding_size}-dimensional embedding; the cosine of "
        "two embeddings says how alike two faces are.\n",
        _usage(name),
        _contract(model.card),
        _figures(results),
        _thresholds(model.card),
        _training(model.card, run),
        f"## Licence\n\n{model.info.get('licence') or 'Not stated by whoever exported the model.'}\n",
        "## Limits\n\nThe figures hold for the protocols named above and no other faces. A false-accept rate "
        "that is not in the table was not measured. Accuracy differs between groups of people and with pose, "
        "age and image quality; measure it on your own data before you rely on it.\n",
    ]
    return "\n".join(parts)


def _nameless(data: Any) -> Any:
    """Data sets by the last part of their path."""
    if isinstance(data, str):
        return data if data.startswith("synthetic:") else Path(data.rstrip("/")).name
    return [_nameless(one) for one in data] if isinstance(data, list | tuple) else data


def _front_matter(name: str, card: Card, results: Sequence[Result]) -> str:
    """YAML; JSON strings and numbers are valid in it, so nothing has to be escaped by hand."""
    lines = ["---", "library_name: facescale", "pipeline_tag: image-feature-extraction"]
    lines += [f"license: {json.dumps(str(card.info.get('licence') or 'unknown'))}"]
    lines += ["tags:", "- face-recognition", f"- {json.dumps(_backbone(card))}"]
    of_pairs = [one for one in results if isinstance(one, VerificationResult)]
    if of_pairs:
        lines += ["metrics:", "- accuracy", "model-index:", f"- name: {json.dumps(name)}", "  results:"]
    for one in of_pairs:
        lines += ["  - task:", "      type: image-feature-extraction", "      name: Face verification"]
        lines += [
            "    dataset:",
            f"      name: {json.dumps(one.name)}",
            f"      type: {json.dumps(one.name)}",
        ]
        lines += ["    metrics:", "    - type: accuracy", f"      value: {one.accuracy.mean:.6f}"]
    return "\n".join([*lines, "---", ""])


def _backbone(card: Card) -> str:
    return str((card.backbone or {}).get("name", "unknown"))


def _usage(name: str) -> str:
    return (
        "## Use\n\n```python\nimport facescale\n\n"
        f"model = facescale.load({json.dumps(name)})  # this folder\n"
        "rows = model.embed(faces)  # uint8 RGB (B, S, S, 3) -> float32 (B, d), unit rows\n```\n"
    )


def _contract(card: Card) -> str:
    rows = [("backbone", _backbone(card)), *card.contract.to_dict().items()]
    return f"## Input\n\nFaces aligned to the ArcFace template.\n\n{_table(('what', 'value'), rows)}\n"


def _figures(results: Sequence[Result]) -> str:
    rows = [
        (one.name, figure, f"{value:.4f}")
        for one in results
        for figure, value in one.figures()
        if math.isfinite(value)
    ]
    if not rows:
        return "## Accuracy\n\nNot measured for this export.\n"
    notes = "".join(f"\n* {note}" for one in results for note in one.notes())
    return f"## Accuracy\n\n{_table(('protocol', 'figure', 'value'), rows)}\n{notes}\n"


def _thresholds(card: Card) -> str:
    rows = [
        (f"{far:g}", f"{one.cosine:.4f}", f"{one.low:.4f} to {one.high:.4f}", one.on)
        for far, one in sorted(card.thresholds.items())
    ]
    if not rows:
        return "## Thresholds\n\nNone was measured.\n"
    return (
        f"## Thresholds\n\n{_table(('false-accept rate', 'cosine', '95 % interval', 'measured on'), rows)}\n"
    )


def _training(card: Card, run: str | Path | None) -> str:
    hidden = ("licence", "accuracy", "alignment")
    shown = [(key, value) for key, value in card.info.items() if key not in hidden]
    text = f"## Training\n\n{_table(('what', 'value'), shown)}\n" if shown else "## Training\n"
    config = RunDir(run).config if run else None
    if config is None or not config.is_file():
        return text
    tree = load_config(config).model_dump(mode="json", exclude_unset=True)
    for section, key in (("data", "train"), ("train", "init")):
        if key in tree.get(section, {}):
            tree[section][key] = _nameless(tree[section][key])
    if sets := tree.get("eval", {}).get("sets"):
        tree["eval"]["sets"] = {name: _nameless(path) for name, path in sets.items()}
    return f"{text}\n```toml\n{tomli_w.dumps(tree).strip()}\n```\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *(line(row) for row in rows)])
