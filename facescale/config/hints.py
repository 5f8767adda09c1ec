"""Words that people bring from other trainers, and what they are called here."""

import re
from collections.abc import Iterable, Mapping

from facescale.registry import nearest

_BATCH = "train.batch_size (the total over all processes)"
_LENGTH = 'train.duration, for example train.duration = "20 epochs"'
_STEPS = 'train.duration, for example train.duration = "5000 steps"'
_WORKERS, _DATA, _LR = "data.workers", "data.train", "optim.lr"
_WARMUP = 'optim.warmup, for example optim.warmup = "2 epochs"'
_MARGIN = "head.margin.name"

# key, or section, or last word of a key -> the key here
KEYS: Mapping[str, str] = {
    "learning_rate": _LR,
    "base_lr": _LR,
    "train.lr": _LR,
    "head.lr": _LR,
    "epochs": _LENGTH,
    "epoch": _LENGTH,
    "num_epochs": _LENGTH,
    "num_epoch": _LENGTH,
    "max_epochs": _LENGTH,
    "steps": _STEPS,
    "max_steps": _STEPS,
    "num_steps": _STEPS,
    "iterations": _STEPS,
    "optim.batch_size": _BATCH,
    "data.batch_size": _BATCH,
    "train.batch": _BATCH,
    "optim.steps": "optim.milestones",
    "optim.lr_steps": "optim.milestones",
    "optim.optimizer": "optim.name",
    "train.optimizer": "optim.name",
    "train.momentum": "optim.momentum",
    "train.weight_decay": "optim.weight_decay",
    "wd": "optim.weight_decay",
    "lr_scheduler": "optim.schedule",
    "scheduler": "optim.schedule",
    "warmup_epochs": _WARMUP,
    "warmup_epoch": _WARMUP,
    "warmup_steps": 'optim.warmup, for example optim.warmup = "1000 steps"',
    "optim.gamma": "optim.gammas, for example optim.gammas = [0.1] (or one for each milestone)",
    "fp16": 'train.precision = "fp16"',
    "bf16": 'train.precision = "bf16"',
    "amp": "train.precision",
    "gradient_acc": "train.accumulate",
    "gradient_accumulation": "train.accumulate",
    "grad_accum": "train.accumulate",
    "grad_clip": "train.clip_norm",
    "max_norm": "train.clip_norm",
    "num_workers": _WORKERS,
    "train.workers": _WORKERS,
    "data.path": _DATA,
    "data.root": _DATA,
    "data.rec": _DATA,
    "train.data": _DATA,
    "data.val": "eval.sets.NAME",
    "val_targets": "eval.sets.NAME",
    "train.pretrained": "train.init",
    "train.resume": "--resume of facescale train",
    "backbone.embedding_dim": "backbone.embedding_size",
    "backbone.dim": "backbone.embedding_size",
    "backbone.image_size": "backbone.input_size",
    "head.loss": _MARGIN,
    "head.scale": "head.margin.scale",
    "head.s": "head.margin.scale",
    "head.m": "head.margin.m",
    "head.margin.s": "head.margin.scale",
    "head.margin.margin": "head.margin.m",
    "head.sample_rate": 'head.rate of head.name = "partial_fc"',
    "margin": "[head.margin], for example head.margin.name and head.margin.m",
    "loss": "[head.margin], for example head.margin.name",
    "model": "[backbone]",
    "network": "[backbone]",
    "optimizer": "[optim]",
    "optimiser": "[optim]",
    "training": "[train]",
    "trainer": "[train]",
    "dataset": "[data]",
    "augmentation": "[augment]",
    "evaluation": "[eval]",
    "val": "[eval]",
    "momentum_encoder": "[twin]",
}

# the name of a component elsewhere -> here
NAMES: Mapping[str, str] = {
    "mobilefacenet": "mbf",
    "mobileface": "mbf",
    "partialfc": "partial_fc",
    "pfc": "partial_fc",
    "fc": "full",
    "softmax": "full",
    "ffc": "f2c",
    "amsoftmax": "cosface",
    "lmcl": "cosface",
    "aamsoftmax": "arcface",
    "curricularface": "curricular",
    "vitt": "vit_t",
    "vits": "vit_s",
    "vitb": "vit_b",
    "vitl": "vit_l",
    "vith": "vit_h",
}


def hint(key: str, word: str, allowed: Iterable[str]) -> str:
    """What was probably meant by an unknown key.

    Args:
        key: the whole dotted key.
        word: its last part.
        allowed: what could stand in its place.

    Returns:
        The rest of a sentence, or nothing.
    """
    meant = KEYS.get(key) or (KEYS.get(word) if "." in key else None)
    return f"; here it is {meant}" if meant else nearest(word, allowed)


def known_name(name: str, allowed: Iterable[str]) -> str | None:
    """The component among ``allowed`` that goes by another name elsewhere, such as resnet50 for r50."""
    plain = re.sub(r"[-_ ]", "", name.lower())
    depth = re.fullmatch(r"(?:iresnet|resnet|r)(\d+)", plain)
    wanted = (plain, NAMES.get(plain), f"r{depth[1]}" if depth else None)
    return next((known for known in allowed if known.replace("_", "") in wanted or known in wanted), None)
