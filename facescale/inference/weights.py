"""Weights files: write ours, read ours and those of other projects."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from facescale import backbones
from facescale.backbones.profile import skeleton
from facescale.convert.foreign import convert
from facescale.files import replacing
from facescale.guard.reading import reason
from facescale.guard.tensor_file import open_tensors
from facescale.inference.adapted import with_base
from facescale.inference.model import Model
from facescale.model_card import KEY, Card, Contract, Threshold


def save_model(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    backbone: Mapping[str, Any],
    contract: Contract,
    thresholds: Mapping[float, Threshold] | None = None,
    info: Mapping[str, Any] | None = None,
    adapters: str | None = None,
    fingerprint: str | None = None,
) -> None:
    """Write weights and their card as one safetensors file, atomically.

    Args:
        path: the file.
        state_dict: of the backbone.
        backbone: ``name``, ``embedding_size``, ``options`` as for `facescale.backbones.build`.
        contract: how the network expects its images.
        thresholds: by false-accept rate.
        info: free, JSON-able.
        adapters: see ``Card.adapters``.
        fingerprint: see ``Card.fingerprint``.
    """
    card = Card(contract, backbone, thresholds or {}, info or {}, fingerprint, adapters=adapters)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {KEY: card.to_json()})


def read_card(path: str | Path) -> Card:
    """The card of a file that `save_model` wrote, without its tensors.

    Raises:
        ValueError: the file cannot be read or has no card.
    """
    with open_tensors(path, "the weights") as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise ValueError(f"the weights '{path}' have no card; use a file that facescale wrote")
    return Card.from_json(text)


def load_model(path: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """Load a file that `save_model` wrote; a file without a card is loaded as that of another project.

    Low-rank adapters are merged into the network of their run.

    Raises:
        ValueError: not such a file; weights that do not fit the backbone; an unknown device or precision.
    """
    with open_tensors(path, "the weights") as file:
        text = (file.metadata() or {}).get(KEY)
        card = None if text is None else _card(text, path)
        state = None if card is None else {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if card is None or state is None:
        return load_foreign(path, device, precision)
    if card.adapters is not None:
        card, state = with_base(path, card, state)
    try:
        module = _build(card.backbone or {}, state)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"cannot use the weights '{path}': {reason(error)}") from None
    return Model.of(_for_use(module), card, device, precision)


def _card(text: str, path: str | Path) -> Card:
    try:
        return Card.from_json(text)
    except ValueError as error:
        raise ValueError(f"cannot use the weights '{path}': {error}") from None


def _build(spec: Mapping[str, Any], state: Mapping[str, Tensor]) -> nn.Module:
    """The network that a card names, if the weights are its own.

    Names and shapes are compared before memory is taken: a card can name a network of any size. Weights of
    timm are never downloaded, as those of the file replace them.
    """
    if set(spec) != {"name", "embedding_size", "options"} or not isinstance(spec["options"], Mapping):
        raise ValueError("its card does not name a backbone")
    if not isinstance(spec["name"], str):
        raise ValueError(f"its card names the backbone {spec['name']!r}, which is not a text")
    options = {key: value for key, value in spec["options"].items() if key != "pretrained"}
    if spec["options"].keys() != options.keys() and not spec["name"].startswith("timm:"):
        raise ValueError(f"its card gives {spec['name']} the option 'pretrained', which only timm has")
    check_layout(skeleton(spec["name"], spec["embedding_size"], **options).state_dict(), state, spec["name"])
    module = backbones.build(spec["name"], spec["embedding_size"], **options)
    module.load_state_dict(state)
    return module


def check_layout(layout: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str) -> None:
    """Check that a state dict has the entries of a network, in its shapes.

    Raises:
        ValueError: one is missing, additional or of another shape.
    """
    missing = [key for key in layout if key not in state]
    added = [key for key in state if key not in layout]
    other = [key for key in layout if key in state and layout[key].shape != state[key].shape]
    problems = [
        f"{len(keys)} entries {what}"
        for keys, what in ((missing, "are missing"), (added, "too many"))
        if keys
    ]
    if other:
        want, have = tuple(layout[other[0]].shape), tuple(state[other[0]].shape)
        problems.append(f"'{other[0]}' has shape {have} instead of {want}")
    if problems:
        first = next(iter([*missing, *added, *other]))
        raise ValueError(
            f"they are not those of the {name} that the card names ({', '.join(problems)}; the first is"
            f" '{first}'); get a complete copy of the file"
        )


def load_foreign(path: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """Load a checkpoint of another project, recognised by its keys (`facescale.convert.foreign`).

    Nothing in the file is executed. ``info["origin"]`` names the project, which also decides the contract;
    ``info["assumed"]`` says what was concluded from shapes where the keys are other ones.

    Raises:
        ValueError: not a checkpoint, or of an unsupported network; an unknown device or precision.
    """
    found = convert(path)
    spec = found.backbone
    module = backbones.build(spec["name"], spec["embedding_size"], **spec["options"])
    module.load_state_dict(found.state_dict)
    assumed = {"assumed": found.assumed} if found.assumed else {}
    card = Card(found.contract, spec, info={"origin": found.origin, **assumed})
    return Model.of(_for_use(module), card, device, precision)


def _for_use(module: nn.Module) -> nn.Module:
    """Evaluation mode, in channels_last layout, which convolutions run faster in."""
    return module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
