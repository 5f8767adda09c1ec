"""Take the thresholds of an evaluation into the weights file, where `facescale.load` finds them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from facescale.checksums import Checksums
from facescale.evaluate.figures import Result
from facescale.evaluate.metrics import MIN_FALSE_ACCEPTS
from facescale.files import replacing
from facescale.inference.weights import read_card
from facescale.model_card import KEY, Card, Threshold

_KEY = "threshold@far="


def adoptable_thresholds(result: Result, fars: Sequence[float] = ()) -> dict[float, Threshold]:
    """Thresholds of a result by false-accept rate, with their intervals.

    Args:
        result: of any protocol with impostor pairs.
        fars: the rates that are wanted; all that the protocol supports if empty.

    Raises:
        ValueError: the protocol has too few impostor pairs for a rate, or none of its figures is a threshold.
    """
    tree = result.to_dict()
    intervals = tree.get("intervals", {})
    found = {}
    for name, value in result.figures():
        if name.startswith(_KEY):
            low, high = intervals.get(name, (value, value))
            found[float(name.removeprefix(_KEY))] = Threshold(value, low, high, result.name)
    pairs = _impostor_pairs(tree)
    if not found and not fars and pairs:
        raise ValueError(
            f"'{result.name}' has no threshold to adopt: its {pairs:,} impostor pairs are too few, or of too "
            "few people, for the false-accept rates that it measures; use more people or images"
        )
    if not found and not pairs:
        raise ValueError(
            f"'{result.name}' has no threshold at a false-accept rate; adopt from another protocol"
        )
    chosen = {}
    for far in fars:
        known = next((rate for rate in found if math.isclose(rate, far, rel_tol=1e-6)), None)
        if known is None:
            raise ValueError(_too_few(result.name, far, tree, sorted(found)))
        chosen[known] = found[known]
    return chosen or found


def _too_few(name: str, far: float, tree: Mapping[str, Any], have: Sequence[float]) -> str:
    pairs = _impostor_pairs(tree)
    if pairs and far * pairs < MIN_FALSE_ACCEPTS:
        return (
            f"FAR {far:g} needs {math.ceil(MIN_FALSE_ACCEPTS / far):,} impostor pairs and '{name}' has "
            f"{pairs:,}; the nearest rate that it supports is {MIN_FALSE_ACCEPTS / pairs:.3g}"
        )
    if not have:
        return (
            f"'{name}' has too few people for a threshold at FAR {far:g}: its interval has no upper end; use "
            "a larger set or a higher rate"
        )
    nearest = min(have, key=lambda rate: abs(math.log(rate / far)))
    return f"'{name}' has no threshold at FAR {far:g}; the nearest rate that it measures is {nearest:g}"


def _impostor_pairs(tree: Mapping[str, Any]) -> int:
    return int(tree.get("impostor_pairs", tree.get("counts", {}).get("impostor pairs", 0)))


def adopt(weights: Path, thresholds: Mapping[float, Threshold]) -> None:
    """Write thresholds into a weights file; those at other rates stay, and so do the weights.

    Args:
        weights: ``.safetensors`` or ``.onnx`` that facescale wrote; a checkpoint's manifest follows.
        thresholds: by false-accept rate.

    Raises:
        ValueError: a file that cannot hold thresholds.
    """
    if weights.suffix == ".safetensors":
        card = _with(read_card(weights), thresholds)
        with replacing(weights) as temporary:
            save_file(load_file(weights), temporary, {KEY: card.to_json()})
            Checksums().renew(weights.parent, weights.name, temporary)
        return
    if weights.suffix == ".onnx":
        import onnx

        file = onnx.load(str(weights))
        stored = {entry.key: entry.value for entry in file.metadata_props}
        if KEY in stored:
            card = _with(Card.from_json(stored[KEY]), thresholds)
            onnx.helper.set_model_props(file, {**stored, KEY: card.to_json()})
            with replacing(weights) as temporary:
                onnx.save(file, str(temporary))
            return
    raise ValueError(
        f"'{weights}' has no place for thresholds; make a .safetensors of it with facescale convert"
    )


def _with(card: Card, thresholds: Mapping[float, Threshold]) -> Card:
    return replace(card, thresholds={**card.thresholds, **thresholds})
