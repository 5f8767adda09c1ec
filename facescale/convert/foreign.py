"""Recognise a checkpoint of another project by its keys, and map it to a facescale backbone."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facescale import registry
from facescale.backbones.profile import skeleton
from facescale.convert.renamed import in_order, parts_of, width_in_order
from facescale.guard.pickles import PickleError
from facescale.guard.reading import check_file, reason
from facescale.guard.tensor_file import read_tensors
from facescale.guard.torch_file import load_torch
from facescale.model_card import Contract

State = dict[str, Tensor]

_TRUNCATED = 0.3  # share of a network's entries that a damaged copy of its file may still have

# Prefixes that trainers and wrappers add to the keys of a backbone.
_PREFIXES = ("module.", "_orig_mod.", "backbone.", "model.", "net.")


@dataclass(frozen=True)
class Origin:
    """A family of checkpoints that share a naming and a preprocessing.

    Attributes:
        name: the project.
        embedding_key: entry of the state dict whose length is the embedding's width.
        backbones: facescale names of its networks.
        mark: prefix of some key of the checkpoint that distinguishes the origin from others with the same
            networks; empty if there is none.
        contract: how it prepares images.
        options: of the facescale backbones, where they change the layout.
    """

    name: str
    embedding_key: str
    backbones: tuple[str, ...]
    mark: str = ""
    contract: Contract = field(default_factory=Contract)
    options: Mapping[str, Any] = field(default_factory=dict)


_IRESNETS = ("r18", "r34", "r50", "r100", "r200")
_MLA = ("mla_r18", "mla_r34", "mla_r50", "mla_r100", "mla_r200")
_IR = ("ir18", "ir34", "ir50", "ir101", "ir_se50", "ir_se101")

# Networks that others have written again. (F2C's MobileFaceNet is mbf_s with another preprocessing.)
_RENAMED = {
    "insightface": frozenset({"mbf_s", "mbf", "mbf_large", "r18", "r34", "r50", "r100"}),
    "MobileFaceNet 112x96": frozenset({"ffc_mobile"}),
    "TFace": frozenset(_IR),
}

_BGR = Contract(colour="BGR")
_FFC = Contract(colour="BGR", std=128.0)

# If two origins fit, the first one counts: those with a mark come before those without.
ORIGINS = (
    Origin("FFC", "features.running_mean", ("ffc_ir50",), "lru", _FFC),
    Origin("FFC", "features.running_mean", ("ffc_r50",), "", replace(_FFC, size=224)),
    Origin("FFC", "linear1.bn.running_mean", ("ffc_mobile",), "", _FFC),
    # 112 rows x 96 columns: MobileFaceNet_Pytorch and others that align as SphereFace does
    Origin("MobileFaceNet 112x96", "linear1.bn.running_mean", ("ffc_mobile",), "", _FFC, {"columns": 96}),
    Origin("insightface", "features.running_mean", _IRESNETS),
    Origin("insightface", "features.layers.3.running_mean", ("mbf", "mbf_large", "mbf_s")),
    Origin("insightface", "feature.3.running_mean", ("vit_t", "vit_s", "vit_b", "vit_l", "vit_h")),
    Origin("MLA-ArcFace", "features.running_mean", _MLA),
    Origin("MLA-ArcFace", "features.running_mean", _MLA, options={"attention": "se"}),
    Origin("MLA-ArcFace", "features.running_mean", _MLA, options={"attention": "ca"}),
    Origin("AdaFace", "output_layer.4.running_mean", _IR, "head.", _BGR),
    Origin("CVLface", "output_layer.4.running_mean", _IR, "net."),
    Origin("TFace", "output_layer.4.running_mean", _IR),
    Origin("AdaFace", "output_layer.4.running_mean", _IR, "", _BGR),
    Origin("insightface", "features.running_mean", ("r2060",)),  # last, because its layout takes a second
)


@dataclass(frozen=True)
class Converted:
    """A checkpoint of another project, mapped to facescale.

    Attributes:
        backbone: ``name``, ``embedding_size`` and ``options``, as `inference.weights.save_model` takes
            it.
        state_dict: float32 weights that load strictly.
        contract: preprocessing of the origin; check it with a few images if you can.
        origin: the project that it comes from.
        assumed: what was concluded from shapes rather than names, one sentence; empty where nothing was.
    """

    backbone: dict[str, Any]
    state_dict: State
    contract: Contract
    origin: str
    assumed: str = ""


def convert(path: str | Path, origin: str | None = None) -> Converted:
    """Read a ``.pth``/``.pt``/``.ckpt``/``.safetensors`` file and recognise it; arguments as `recognise`.

    Raises:
        ValueError: the file cannot be read, contains no weights, or those of an unsupported network.
    """
    return recognise(read(path), str(path), origin)


def read(path: str | Path) -> Any:
    """Load a checkpoint without executing anything in it.

    Objects that a trainer pickled beside its weights become inert placeholders.

    Raises:
        ValueError: no such file, or not a checkpoint.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return read_tensors(path, "the checkpoint")[0]
    check_file(path, "the checkpoint")
    try:
        with path.open("rb") as file:
            return load_torch(file)
    except PickleError as error:
        raise ValueError(
            f"'{path}' is not a checkpoint, or would execute code when read, which is refused"
            f" ({reason(error)}); save the state dict alone, with torch.save(net.state_dict(), FILE), where"
            " it was made"
        ) from None
    except Exception as error:  # a damaged archive raises errors of zipfile, struct, zlib, torch, ...
        raise ValueError(
            f"'{path}' cannot be read as a PyTorch or safetensors checkpoint ({reason(error)}); "
            "get a complete copy of it"
        ) from None


def recognise(checkpoint: Any, path: str = "the checkpoint", origin: str | None = None) -> Converted:
    """Identify the backbone that the weights in ``checkpoint`` belong to.

    Args:
        checkpoint: what `read` returned.
        path: names it in messages.
        origin: the project that it comes from, if the keys fit several (a bare AdaFace state dict has the
            keys of a TFace one, and another colour order).

    Raises:
        ValueError: no weights, an unknown origin or network, or missing, additional or misshapen entries.
    """
    names = dict.fromkeys(candidate.name for candidate in ORIGINS)
    if origin is not None:
        registry.lookup("origin", names, origin)
    states = list(_state_dicts(checkpoint))
    if not states:
        raise ValueError(
            f"{path} contains no named tensors; use a state dict or a checkpoint that contains one"
        )
    largest = max(states, key=len)
    marks = [str(key) for key in (*checkpoint, *largest)]
    state = _without_prefix(largest)
    best = (0.0, "", False)
    for candidate in ORIGINS:
        told = origin or (candidate.name if any(key.startswith(candidate.mark) for key in marks) else None)
        if candidate.name != told or candidate.embedding_key not in state:
            continue
        embedding_size = state[candidate.embedding_key].numel()
        for name in candidate.backbones:
            layout = skeleton(name, embedding_size, **candidate.options).state_dict()
            likeness = _likeness(state, layout)
            if likeness == 1:
                _check_finite(state, path)
                spec = {"name": name, "embedding_size": embedding_size, "options": dict(candidate.options)}
                return Converted(spec, _complete(state, layout), candidate.contract, candidate.name)
            what = f"{candidate.name}'s {name}, {_difference(state, layout)}"
            best = max(best, (likeness, what, _is_part(state, layout)))
    if renamed := _renamed(largest, origin):
        _check_finite(renamed.state_dict, path)
        return renamed
    if best[0] > _TRUNCATED and best[2]:
        raise ValueError(f"{path} is not complete: it resembles {best[1]}; get a complete copy of it")
    nearest = f"; the nearest is {best[1]}" if best[0] >= 0.3 else ""
    raise ValueError(
        f"{path} is not a supported network (its keys: {', '.join(list(state)[:3])}, ...{nearest}); "
        f"supported are checkpoints of {', '.join(names)}"
    )


def _renamed(state: State, origin: str | None) -> Converted | None:
    """The first network whose entries have the same shapes in the same order, under other names."""
    for part in parts_of(state):
        for candidate in ORIGINS:
            if origin not in (None, candidate.name):
                continue
            for name in [n for n in candidate.backbones if n in _RENAMED.get(candidate.name, ())]:
                any_width = skeleton(name, 512, **candidate.options).state_dict()
                width = width_in_order(part, any_width, candidate.embedding_key)
                layout = skeleton(name, width, **candidate.options).state_dict() if width else any_width
                if (found := in_order(part, layout)) is not None:
                    spec = {"name": name, "embedding_size": width, "options": dict(candidate.options)}
                    assumed = _assumption(f"{candidate.name}'s {name}", part, candidate.contract)
                    complete = _complete(found, layout)
                    return Converted(spec, complete, candidate.contract, candidate.name, assumed)
    return None


def _assumption(network: str, state: State, contract: Contract) -> str:
    return (
        f"recognised as {network} by the shapes and the order of its {len(state)} entries (the first is "
        f"'{next(iter(state))}'); assumed to take {contract.colour}, (v - {contract.mean:g}) / "
        f"{contract.std:g}: check it on a few faces"
    )


def _state_dicts(checkpoint: Any) -> Iterator[State]:
    """Every dict of tensors inside ``checkpoint``, outer ones first; one that occurs twice is seen once."""
    seen: set[int] = set()
    waiting = deque([checkpoint])
    while waiting:
        item = waiting.popleft()
        if not isinstance(item, Mapping) or id(item) in seen:
            continue
        seen.add(id(item))
        tensors = {
            key: value for key, value in item.items() if isinstance(key, str) and isinstance(value, Tensor)
        }
        if tensors:
            yield tensors
        waiting.extend(item.values())


def _without_prefix(state: State) -> State:
    """Strip prefixes of the backbone's keys; drop entries of other modules."""
    for prefix in _PREFIXES:
        inner = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        if len(inner) > len(state) / 2:
            return _without_prefix(inner)
    return state


def _check_finite(state: State, path: str) -> None:
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise ValueError(
                f"{path} holds values that are not finite (in '{key}'): its training diverged, or it is"
                " damaged; use an earlier checkpoint"
            )


def _is_counter(key: str) -> bool:
    # Counts training steps; old checkpoints do not have it, and nothing in a prediction depends on it.
    return key.endswith("num_batches_tracked")


def _likeness(state: State, layout: State) -> float:
    """Fraction of all entries of both that agree in name and shape."""
    keys = {key for key in state.keys() | layout.keys() if not _is_counter(key)}
    equal = [k for k in keys if k in state and k in layout and state[k].shape == layout[k].shape]
    return len(equal) / len(keys)


def _is_part(state: State, layout: State) -> bool:
    """Whether a state dict has nothing but entries of the network: then the others were lost."""
    return all(_is_counter(k) or (k in layout and v.shape == layout[k].shape) for k, v in state.items())


def _difference(state: State, layout: State) -> str:
    """Describe the first difference of each kind."""
    missing = [key for key in layout if key not in state and not _is_counter(key)]
    additional = [key for key in state if key not in layout and not _is_counter(key)]
    shapes = [key for key in layout if key in state and state[key].shape != layout[key].shape]
    words = []
    if missing:
        words.append(f"{len(missing)} entries missing (the first is '{missing[0]}')")
    if additional:
        words.append(f"{len(additional)} entries too many (the first is '{additional[0]}')")
    if shapes:
        key = shapes[0]
        words.append(f"'{key}' has shape {tuple(state[key].shape)} instead of {tuple(layout[key].shape)}")
    return ", ".join(words)


def _complete(state: State, layout: State) -> State:
    """The entries in our order and our types."""
    counters = {key: torch.zeros((), dtype=torch.int64) for key in layout if _is_counter(key)}
    entries = counters | state
    return {key: entries[key].to(layout[key].dtype) for key in layout}
