"""README.md of a model on a hub: what the run knows, and marked sections that a person fills in."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from facescale.config import load_config
from facescale.evaluate.figures import Result
from facescale.evaluate.verification_result import VerificationResult
from facescale.inference.model import Model
from facescale.model_card import Card
from facescale.run import RunDir

MARK = "**To fill in:**"
# Heading -> what a person has to write below it, because no file of a run holds it.
BY_HAND = {
    "Intended use": "what the model is for, and what it must not be used for.",
    "Differences between groups": (
        "accuracy and false-accept rates by group, such as age, sex and skin tone, or that none was measured."
    ),
    "People in the training data": (
        "who they are, where the photos come from, and the consent or licence that allows their use."
    ),
    "Contact": "who answers questions, and who removes a person's data on request.",
}


def model_card(
    name: str,
    model: Model,
    results: Sequence[Result],
    run: str | Path | None = None,
    written: Mapping[str, str] | None = None,
) -> str:
    """README.md of a model, with the metadata that the hub reads at its top.

    Args:
        name: of the model.
        model: its card tells the contract, the thresholds and the data.
        results: what was measured for this card.
        run: where it was trained; its config is shown.
        written: text by heading of `BY_HAND`; a section without one is marked as to fill in.
    """
    told = {**{heading: f"{MARK} {what}" for heading, what in BY_HAND.items()}, **(written or {})}
    hand = {heading: f"## {heading}\n\n{text}\n" for heading, text in told.items()}
    parts = [
        _front_matter(name, model.card, results),
        f"# {name}\n\nMaps an aligned face to a {model.embedding_size}-dimensional embedding; the cosine of "
        "two embeddings says how alike two faces are.\n",
        hand["Intended use"],
        _usage(name),
        _contract(model.card),
        _figures(results),
        _thresholds(model.card),
        hand["Differences between groups"],
        _training(model.card, run),
        hand["People in the training data"],
        f"## Licence\n\n{model.info.get('licence') or 'Not stated by whoever exported the model.'}\n",
        "## Limits\n\nThe figures hold for the protocols named above and no other faces. A false-accept rate "
        "that is not in the table was not measured. Accuracy differs between groups of people and with pose, "
        "age and image quality; measure it on your own data before you rely on it.\n",
        hand["Contact"],
    ]
    return "\n".join(parts)


def by_hand(text: str) -> dict[str, str]:
    """What a person wrote below the headings of `BY_HAND` in a card; those still marked are left out."""
    sections = re.split(r"^## +(.+?) *$", text, flags=re.MULTILINE)[1:]
    found = {heading: body.strip() for heading, body in zip(sections[::2], sections[1::2], strict=True)}
    return {key: found[key] for key in BY_HAND if found.get(key) and not found[key].startswith(MARK)}


def without_folders(data: Any) -> Any:
    """Name data sets by the last part of their path."""
    if isinstance(data, str):
        return data if data.startswith("synthetic:") else Path(data.rstrip("/")).name
    return [without_folders(one) for one in data] if isinstance(data, list | tuple) else data


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
            tree[section][key] = without_folders(tree[section][key])
    if sets := tree.get("eval", {}).get("sets"):
        tree["eval"]["sets"] = {name: without_folders(path) for name, path in sets.items()}
    return f"{text}\n```toml\n{tomli_w.dumps(tree).strip()}\n```\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def line(cells: Sequence[Any]) -> str:
        return "| " + " | ".join(str(cell).replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *(line(row) for row in rows)])
