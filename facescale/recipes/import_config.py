"""Translate the configs of arcface_torch, AttFC and F2C into a TOML of facescale."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w

from facescale.backbones import factory
from facescale.recipes.foreign_config import read_settings

Settings = dict[str, Any]
Tree = dict[str, dict[str, Any]]

# what their trainers take where a config says nothing: configs/base.py of arcface_torch, main.py of F2C
_ARCFACE_TORCH: Settings = {
    "margin_list": [1.0, 0.5, 0.0],
    "network": "r50",
    "embedding_size": 512,
    "sample_rate": 1,
    "interclass_filtering_threshold": 0,
    "batch_size": 128,
    "gradient_acc": 1,
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "num_epoch": 20,
    "warmup_epoch": 0,
    "seed": 2048,
}
_F2C: Settings = {
    "net_type": "mobile",
    "feat_dim": 512,
    "batch_size": 256,
    "alpha": 0.99,
    "loss_type": "Arc",
    "margin": 0.5,
    "scale": 32.0,
    "LR": 0.1,
    "decay": 1e-4,
    "momentum": 0.9,
    "nesterov": 1,
    "scheduler": "multistep",
    "epochs": 19,
    "milestones": [8, 14, 17],
    "gammas": [0.1, 0.1, 0.1],
    "warmup": 0,
}
# of no consequence here: where things lie, how often is printed, what follows from other settings
_IMPLIED = frozenset(
    [
        *("output", "val", "verbose", "frequent", "print_freq", "num_workers", "fp16", "optim", "loss"),
        *("patience", "LR_min", "neg_margin", "sync_bn", "resume", "save_all_states", "image_size"),
        *("num_image", "total_step", "warmup_step", "steps_per_epoch", "world_size"),
    ]
)
_NETWORKS = {"mobile": "ffc_mobile", "ir50": "ffc_ir50", "r50": "ffc_r50", "mobilefacenet": "mbf"}
_FIRST_FORM_BATCH = 512  # that "lr" was meant for in arcface_torch's first configs, which name a "loss"
_ITEMS_PER_IMAGE = 1.5  # F2C: two images of each of B identities and B instances in two views


def import_configs(files: Sequence[Path], processes: int) -> str:
    """A config as TOML text, with comments on what has no counterpart.

    Args:
        files: of one training: one config of arcface_torch or AttFC, or the files of F2C.
        processes: it ran on; a batch there is that of one process.

    Raises:
        ValueError: a file cannot be read or holds no settings, or a value has no counterpart that a
            training could do without.
    """
    settings: Settings = {}
    unknown: list[str] = []
    for file in files:
        found, open_ones = read_settings(file)
        settings |= found
        unknown += open_ones
    is_f2c = _is_f2c(settings)
    read = _Read(settings, _F2C if is_f2c else _ARCFACE_TORCH)
    tree = (_f2c if is_f2c else _arcface_torch)(read, processes)
    _check_network(str(tree["backbone"]["name"]))
    left = sorted({name for name in settings if name not in read.used and name not in _IMPLIED})
    unread = [name for name in unknown if name not in _IMPLIED]
    names = ", ".join(file.name for file in files)
    header = [f"Translated from {names}; total batch over {processes} process(es)."]
    header += [f"No counterpart: {name} = {settings[name]!r}" for name in left]
    header += [f"Not read, since only running it would give its value: {name}" for name in sorted({*unread})]
    header += ["Set data.train to your data." for _ in range("data" not in tree)]
    comments = "".join(f"# {_one_line(line)}\n" for line in header)
    return f"{comments}\n{tomli_w.dumps({key: value for key, value in tree.items() if value})}"


def _one_line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)[:300]


def _is_f2c(settings: Settings) -> bool:
    return bool({"net_type", "queue_size", "LR"} & settings.keys()) and "margin_list" not in settings


class _Read:
    """Settings that remember which of them were asked for."""

    def __init__(self, settings: Settings, defaults: Settings) -> None:
        self._stated, self._settings = frozenset(settings), defaults | settings
        self.used: set[str] = set()

    def stated(self, name: str) -> bool:
        """Whether the files say it."""
        return name in self._stated

    def get(self, name: str, default: Any = None) -> Any:
        self.used.add(name)
        return self._settings.get(name, default)

    def number(self, name: str, default: float = 0) -> Any:
        value = self.get(name, default)
        if not isinstance(value, int | float):
            raise ValueError(f"{name} = {value!r} is not a number")
        return value


def _arcface_torch(read: _Read, processes: int) -> Tree:
    keys = int(read.number("sample_num")) - 1
    attfc = keys > 0
    accumulate = int(read.number("gradient_acc"))
    batch = int(read.number("batch_size")) * processes * accumulate
    adamw = read.get("optimizer") == "adamw"
    warmup = read.number("warmup_epoch")
    momentum = read.number("momentum")
    seed = read.number("seed")
    first_form = read.get("loss") is not None and not read.stated("margin_list")
    tree: Tree = {
        "backbone": {
            **_network(str(read.get("network"))),
            "embedding_size": int(read.number("embedding_size")),
        },
        "head": {**(_attfc(read, keys) if attfc else _sampled(read)), "margin": _margin(read)},
        "optim": {
            "name": str(read.get("optimizer")),
            "lr": float(read.number("lr")),
            "reference_batch": _FIRST_FORM_BATCH if first_form else batch,
            "weight_decay": float(read.number("weight_decay")),
            **({} if adamw else {"momentum": float(momentum)}),
            **({"schedule": "cosine"} if attfc else _steps(read)),
            **({"warmup": f"{warmup} epochs"} if warmup > 0 else {}),
        },
        "train": {
            "duration": f"{read.number('num_epoch')} epochs",
            "batch_size": batch,
            "seed": int(seed),
            **({"accumulate": accumulate} if accumulate > 1 else {}),
        },
    }
    return _data(read) | tree


def _steps(read: _Read) -> dict[str, Any]:
    """The schedule of arcface_torch's first configs, where one states its epochs."""
    epochs = read.get("decay_epoch") or []
    if not (isinstance(epochs, list) and all(isinstance(epoch, int | float) for epoch in epochs)):
        raise ValueError(f"decay_epoch = {epochs!r} is not a list of epochs")
    return {"schedule": "multistep", "milestones": [f"{epoch} epochs" for epoch in epochs]} if epochs else {}


def _data(read: _Read) -> Tree:
    folder = str(read.get("rec") or read.get("data_root") or "").rstrip("/")
    sets = read.get("val_targets") or []
    read.get("num_classes"), read.get("anno_files")
    if not folder or folder == "synthetic":
        return {}
    is_record = bool(read.get("rec"))
    data = {"data": {"train": f"{folder}/train.rec" if is_record else folder}}
    return data | {"eval": {"sets": {str(name): f"{folder}/{name}.bin" for name in sets}}} if sets else data


def _network(name: str) -> dict[str, Any]:
    """A backbone of arcface_torch; ``vit_b_dp005_mask_005`` says its drop path and masking."""
    found = re.fullmatch(r"(vit_[tsblh])(?:_dp(\d+))?(?:_mask_?(\d+))?", name)
    if not found:
        return {"name": _NETWORKS.get(name, name) if name == "mobilefacenet" else name}
    rates = {"drop_path": found[2], "mask_ratio": found[3]}
    return {"name": found[1], **{key: _digits(text) for key, text in rates.items() if text is not None}}


def _check_network(name: str) -> None:
    try:
        factory(name)
    except ValueError as error:
        raise ValueError(f"the network has no counterpart: {error}; name one of these in a copy") from None


def _digits(text: str) -> float:
    """``005`` is 0.05, ``0`` is 0."""
    return float(f"{text[0]}.{text[1:]}")


def _margin(read: _Read) -> dict[str, Any]:
    margins, threshold = read.get("margin_list"), read.number("interclass_filtering_threshold")
    name = read.get("loss")
    if not (isinstance(margins, list) and len(margins) == 3):
        raise ValueError(f"margin_list = {margins!r} is not three numbers (m1, m2, m3)")
    m1, m2, m3 = (float(m) for m in margins)
    if name == "cosface" or m3 > 0:  # where m3 > 0 the release ignores m1 and m2
        margin: dict[str, Any] = {"name": "cosface", "scale": 64.0, "m": m3 or 0.4}
    elif m1 == 1:
        margin = {"name": "arcface", "scale": 64.0, "m": m2}
    else:
        margin = {"name": "combined", "scale": 64.0, "m1": m1, "m2": m2}
    return margin | ({"interclass_filter": float(threshold)} if threshold > 0 else {})


def _sampled(read: _Read) -> dict[str, Any]:
    rate = float(read.number("sample_rate"))
    return {"name": "full"} if rate >= 1 else {"name": "partial_fc", "rate": rate}


def _attfc(read: _Read, keys: int) -> dict[str, Any]:
    size = read.get("queue_size")
    return {"name": "attfc", "keys": keys, **({"size": size} if isinstance(size, int) else {"share": 0.3})}


def _f2c(read: _Read, processes: int) -> Tree:
    batch = int(int(read.number("batch_size")) * _ITEMS_PER_IMAGE) * processes
    size, schedule, warmup = read.get("queue_size"), read.get("scheduler"), read.number("warmup")
    losses = {"AM": ("cosface", {}), "Arc": ("arcface", {"fallback": False}), "SV": ("sv_softmax", {})}
    loss = str(read.get("loss_type"))
    if loss not in losses:
        raise ValueError(f"loss_type = {loss!r} is not one of AM, Arc and SV")
    name, options = losses[loss]
    steps = {
        "milestones": [f"{epoch} epochs" for epoch in read.get("milestones")],
        "gammas": [float(gamma) for gamma in read.get("gammas")],
    }
    network = str(read.get("net_type"))
    return {
        "backbone": {"name": _NETWORKS.get(network, network), "embedding_size": int(read.number("feat_dim"))},
        "head": {
            "name": "f2c",
            **({"size": size} if isinstance(size, int) else {}),
            "margin": {
                "name": name,
                "scale": float(read.number("scale")),
                "m": float(read.number("margin")),
                **options,
            },
        },
        "twin": {"momentum": float(read.number("alpha"))},
        "optim": {
            "lr": float(read.number("LR")),
            "reference_batch": batch,
            "momentum": float(read.number("momentum")),
            "nesterov": bool(read.number("nesterov")),
            "weight_decay": float(read.number("decay")),
            "schedule": str(schedule),
            **(steps if schedule == "multistep" else {}),
            **({"warmup": f"{warmup} epochs"} if warmup > 0 else {}),
        },
        "train": {"duration": f"{read.number('epochs')} epochs", "batch_size": batch},
    }
