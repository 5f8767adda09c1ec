"""What travels with the weights: the preprocessing contract, the thresholds, where they come from."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from torch import Tensor

from facescale.guard.limits import CARD_BYTES
from facescale.guard.reading import is_sentence, reason
from facescale.ops import normalise
from facescale.registry import nearest

KEY = "facescale"  # the one metadata entry that holds a card, in every kind of file
_FORMAT = 1


@dataclass(frozen=True)
class Contract:
    """How pixels become the numbers that a network was trained on, and views become one embedding.

    Attributes:
        size: side of the (square, aligned) image in pixels.
        colour: order of the channels that the network sees, "RGB" or "BGR"; images are given as RGB always.
        mean: subtracted from the 0..255 values.
        std: what the result is divided by.
        flip: the embedding is the sum of those of the image and of its mirror image, then normalised.
        resize: what happens to an image of another size: "none" refuses it, as faces must be aligned; "area"
            scales it as the training did (area average to shrink, bicubic to enlarge).

    Raises:
        ValueError: a value out of range.
    """

    size: int = 112
    colour: Literal["RGB", "BGR"] = "RGB"
    mean: float = 127.5
    std: float = 127.5
    flip: bool = True
    resize: Literal["none", "area"] = "none"

    def __post_init__(self) -> None:
        size_is_whole = isinstance(self.size, int) and not isinstance(self.size, bool)
        if not size_is_whole or not 16 <= self.size <= 1024:
            raise ValueError(f"contract: size = {self.size!r} must be a whole number of pixels, 16 to 1024")
        if self.colour not in ("RGB", "BGR"):
            raise ValueError(f"contract: colour = {self.colour!r} must be 'RGB' or 'BGR'")
        for name, value in (("mean", self.mean), ("std", self.std)):
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or (name == "std" and value <= 0):
                allowed = "a number above 0" if name == "std" else "a number"
                raise ValueError(f"contract: {name} = {value!r} must be {allowed}, on the 0 to 255 scale")
        if not isinstance(self.flip, bool):
            raise ValueError(f"contract: flip = {self.flip!r} must be true or false")
        if self.resize not in ("none", "area"):
            raise ValueError(f"contract: resize = {self.resize!r} must be 'none' or 'area'")

    def normalise(self, images_BHW3: Tensor) -> Tensor:
        """Turn uint8 RGB images (B, H, W, 3) into the network's float32 input (B, 3, H, W), channels last."""
        return normalise(images_BHW3.flip(-1) if self.colour == "BGR" else images_BHW3, self.mean, self.std)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; one that refuses other sizes says nothing of resizing, as older ones."""
        values = asdict(self)
        if self.resize == "none":
            del values["resize"]
        return values

    def words(self) -> str:
        """The contract in one line for people."""
        pixels = f"({self.colour} 0..255 - {self.mean:g}) / {self.std:g}"
        return f"{self.size}x{self.size}, {pixels}, {'mirrored view added' if self.flip else 'one view'}"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Contract":
        """Read what `to_dict` gave.

        Raises:
            ValueError: a key is missing or unknown, or a value is out of range.
        """
        names = [item.name for item in fields(cls)]
        for key in values:
            if key not in names:
                raise ValueError(
                    f"contract: unknown key '{key}'{nearest(key, names)}; it has: {', '.join(names)}"
                )
        missing = [name for name in names if name not in values and name != "resize"]
        if missing:
            raise ValueError(f"contract: {', '.join(missing)} not stated; all of {', '.join(names)} must be")
        return cls(**values)


@dataclass(frozen=True)
class Threshold:
    """Cosine at and above which two faces are called the same person, at one false-accept rate.

    Attributes:
        cosine: the threshold.
        low: lower end of its bootstrap interval.
        high: upper end.
        on: the protocol that it was measured on; on other faces the rate will be another.

    Raises:
        ValueError: a number that is not finite.
    """

    cosine: float
    low: float
    high: float
    on: str

    def __post_init__(self) -> None:
        for name in ("cosine", "low", "high"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"threshold: {name} = {value!r} must be a finite number")


@dataclass(frozen=True)
class Card:
    """All that a weights file says of itself.

    Attributes:
        contract: how to feed the network.
        backbone: ``name``, ``embedding_size`` and ``options`` for `facescale.backbones.build`; None where
            only a graph is known (ONNX).
        thresholds: by false-accept rate.
        info: free, JSON-able: licence, data, step, figures, ...
        fingerprint: identity of the weights that an export was made from; None: computed from the weights.
        graph: what an exported graph does by itself; None for bare weights.
        adapters: fingerprint of the network that the weights are low-rank adapters of; None: they are whole.
    """

    contract: Contract = Contract()
    backbone: Mapping[str, Any] | None = None
    thresholds: Mapping[float, Threshold] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    graph: "Graph | None" = None
    adapters: str | None = None

    def to_json(self) -> str:
        """One line of JSON, the same for the same card."""
        tree = {
            "format": _FORMAT,
            "contract": self.contract.to_dict(),
            "backbone": self.backbone,
            "thresholds": {repr(far): asdict(self.thresholds[far]) for far in sorted(self.thresholds)},
            "info": self.info,
            "fingerprint": self.fingerprint,
            "graph": self.graph and asdict(self.graph),
            **({"adapters": self.adapters} if self.adapters else {}),
        }
        return json.dumps(tree, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """Read what `to_json` gave.

        Raises:
            ValueError: another format, or damaged.
        """
        try:
            if len(text) > CARD_BYTES:
                raise ValueError(
                    f"its card has {len(text):,} letters, more than the {CARD_BYTES:,} that are read"
                )
            tree = json.loads(text)
            if tree["format"] != _FORMAT:
                raise ValueError(
                    f"its card has format {tree['format']}, this version reads {_FORMAT}; upgrade facescale"
                )
            return cls(
                contract=Contract.from_dict(tree["contract"]),
                backbone=tree["backbone"],
                thresholds={float(far): Threshold(**values) for far, values in tree["thresholds"].items()},
                info=tree["info"],
                fingerprint=tree["fingerprint"],
                graph=tree["graph"] and Graph(**tree["graph"]),
                adapters=tree.get("adapters"),
            )
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            if is_sentence(error):
                raise
            raise ValueError(f"its card is damaged ({type(error).__name__}: {reason(error)})") from None


@dataclass(frozen=True)
class Graph:
    """What an exported graph does by itself.

    Attributes:
        uint8_input: takes uint8 RGB (B, S, S, 3); else the contract's normalised float32 (B, 3, S, S).
        unit_output: gives the final unit embedding, mirrored view included where the contract has it; else
            the raw embedding of the one view it was given.
        precision: "fp32", "fp16" or "int8": what the network computes in.
    """

    uint8_input: bool = False
    unit_output: bool = False
    precision: str = "fp32"
