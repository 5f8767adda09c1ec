"""Weights files: write ours, read ours and those of other projects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from facescale import backbones
from facescale.convert.foreign import convert
from facescale.files import replacing
from facescale.inference.model import Model
from facescale.model_card import KEY, Card, Contract, Threshold


def save_model(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    backbone: Mapping[str, Any],
    contract: Contract,
    thresholds: Mapping[float, Threshold] | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write weights and what must travel with them as one safetensors file, atomically.

    Args:
        path: the file.
        state_dict: of the backbone.
        backbone: ``name``, ``embedding_size``, ``options`` as for `facescale.backbones.build`.
        contract: how the network wants its images.
        thresholds: by false-accept rate.
        info: free, JSON-able.
    """
    card = Card(contract, backbone, thresholds or {}, info or {})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {KEY: card.to_json()})


def read_card(path: str | Path) -> Card:
    """The card of a file that `save_model` wrote, without its tensors.

    Raises:
        ValueError: the file cannot be read or has no card.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read the weights '{path}': {error}") from None
    if text is None:
        raise ValueError(f"the weights '{path}' have no card; give a file that facescale wrote")
    return Card.from_json(text)


def load_model(path: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """Load a file that `save_model` wrote; one without a card is taken for another project's.

    Raises:
        ValueError: not such a file; its weights do not fit its backbone; no such device or precision.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
            state = {name: file.get_tensor(name) for name in file.keys()} if text else {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read the weights '{path}': {error}") from None
    if text is None:
        return load_foreign(path, device, precision)
    try:
        card = Card.from_json(text)
        spec = card.backbone or {}
        if set(spec) != {"name", "embedding_size", "options"}:
            raise ValueError("its card names no backbone")
        module = backbones.build(spec["name"], spec["embedding_size"], **spec["options"])
        module.load_state_dict(state)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"cannot use the weights '{path}': {error}") from None
    return Model.of(_for_use(module), card, device, precision)


def load_foreign(path: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """Load a checkpoint of another project, which `facescale.backbones.convert` knows by its keys.

    Nothing in the file is executed. ``info["origin"]`` names the project, which also decides the contract.

    Raises:
        ValueError: not a checkpoint, or of no network that is known; no such device or precision.
    """
    found = convert(path)
    spec = found.backbone
    module = backbones.build(spec["name"], spec["embedding_size"], **spec["options"])
    module.load_state_dict(found.state_dict)
    card = Card(found.contract, spec, info={"origin": found.origin})
    return Model.of(_for_use(module), card, device, precision)


def _for_use(module: nn.Module) -> nn.Module:
    """Evaluation mode, and the memory layout that convolutions like."""
    return module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
