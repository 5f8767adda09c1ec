"""The configuration of a run: frozen models, strict TOML, one sentence per mistake."""

import json
import math
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from facescale.registry import nearest

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(epochs?|steps?|%)")


def parse_duration(text: str) -> tuple[float, Literal["epoch", "step", "%"]]:
    """Split a duration such as "20 epochs", "5000 steps" or "10%" into number and unit.

    Raises:
        ValueError: not a duration.
    """
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"'{text}' is not a duration; write 20 epochs, 5000 steps or 10% (of the run)")
    unit = match[2].rstrip("s")
    return float(match[1]), unit  # type: ignore[return-value]


def duration_steps(text: str, steps_per_epoch: int, total_steps: int | None = None) -> int:
    """Number of optimiser steps in a duration.

    Args:
        text: the duration.
        steps_per_epoch: steps in one pass over the data.
        total_steps: length of the run, which percentages refer to.

    Raises:
        ValueError: not a duration, or a percentage where the length of the run itself is being set.
    """
    number, unit = parse_duration(text)
    if unit == "step":
        return round(number)
    if unit == "epoch":
        return round(number * steps_per_epoch)
    if total_steps is None:
        raise ValueError(f"the run's own length cannot be '{text}'; give it in epochs or steps")
    return round(number / 100 * total_steps)


def _check_duration(text: str) -> str:
    parse_duration(text)
    return text


Duration = Annotated[str, AfterValidator(_check_duration)]


class Section(BaseModel):
    """Base of all parts of a config: immutable, unknown keys are mistakes."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class Component(Section):
    """A named component; keys beside ``name`` and the declared ones are options of that component."""

    model_config = ConfigDict(frozen=True, extra="allow", validate_default=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options that go to the component itself."""
        return dict(self.model_extra or {})


class DataConfig(Section):
    """Where the training images come from."""

    train: str | list[str] = Field(
        "synthetic:ids=1000,images=20", description="folder, .rec file or synthetic:...; a list is joined"
    )
    workers: int = Field(2, ge=0, description="decoding threads; no influence on the data")
    resize: bool = Field(False, description="scale images of another size than the backbone takes")
    min_images: int = Field(1, ge=1, description="leave out identities with fewer images")
    max_bad_share: float = Field(0.01, ge=0, le=1, description="unreadable share that stops the run")


class AugmentConfig(Section):
    """What happens to a training image, on the device; probabilities 0..1, all off but flip."""

    flip: bool = Field(True, description="mirror half of the images")
    shift: int = Field(0, ge=0, le=56, description="move by up to this many pixels in x and y")
    scale: float = Field(0.0, ge=0, le=0.5, description="zoom by up to this share in and out")
    rotate: float = Field(0.0, ge=0, le=45, description="turn by up to this many degrees")
    brightness: float = Field(0.0, ge=0, le=1, description="brightness changes by up to this share")
    contrast: float = Field(0.0, ge=0, le=1, description="contrast changes by up to this share")
    saturation: float = Field(0.0, ge=0, le=1, description="colourfulness changes by up to this share")
    grey: float = Field(0.0, ge=0, le=1, description="probability of a grey picture")
    low_resolution: float = Field(0.0, ge=0, le=1, description="probability of a low-resolution picture")
    erase: float = Field(0.0, ge=0, le=1, description="probability of a blanked rectangle")


class BackboneConfig(Component):
    """The network; further keys are its own options (``facescale list backbones``)."""

    name: str = Field("mbf", description="one of: facescale list backbones")
    embedding_size: int = Field(512, ge=8, description="width of the embedding")


class MarginConfig(Component):
    """The margin; further keys are its own options (scale, m, ...)."""

    name: str = Field("cosface", description="one of: facescale list margins")
    ramp: Duration = Field("0%", description="the margin grows from 0 to its value over this time")


class HeadConfig(Component):
    """The head; further keys are its own options."""

    name: str = Field("full", description="one of: facescale list heads")
    margin: MarginConfig = Field(default_factory=lambda: MarginConfig(), description="see [head.margin]")


class TwinConfig(Section):
    """The momentum encoder, for heads that need one (attfc, f2c)."""

    momentum: float = Field(0.999, ge=0, lt=1, description="share of its old weights that it keeps each step")
    schedule: Literal["constant", "warmup", "cosine"] = Field(
        "constant", description="of the momentum: warmup follows closely at first, cosine comes to rest"
    )
    buffers: Literal["own", "copy", "average"] = Field(
        "own", description="batch norm: the batch's statistics, or the backbone's running ones"
    )


class OptimConfig(Section):
    """Optimiser and learning-rate schedule."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="optimiser")
    lr: float = Field(0.1, gt=0, description="learning rate at the reference batch")
    reference_batch: int = Field(
        512,
        ge=1,
        description="total batch that lr is meant for; the rate scales with the real batch",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd: momentum")
    nesterov: bool = Field(False, description="sgd: Nesterov's form")
    betas: tuple[float, float] = Field((0.9, 0.999), description="adamw: decay of the two averages")
    weight_decay: float = Field(5e-4, ge=0, description="decay of weights (not of norms, biases, PReLU)")
    schedule: Literal["polynomial", "cosine", "multistep"] = Field(
        "polynomial", description="shape of the rate"
    )
    warmup: Duration = Field("0%", description="linear rise at the start")
    power: float = Field(1.0, gt=0, description="polynomial: exponent of the decay")
    milestones: list[Duration] = Field(default_factory=list, description="multistep: when the rate drops")
    gamma: float = Field(0.1, gt=0, lt=1, description="multistep: factor of each drop")
    compat: bool = Field(
        False, description="as the released code: decay on every parameter, first warm-up step at full rate"
    )


class TrainConfig(Section):
    """Length, batch, precision and safety of the training."""

    duration: Duration = Field("20 epochs", description="length of the run")
    init: str = Field(
        "", description="run or weights to start from: its network, a run's class centres by identity name"
    )
    batch_size: int = Field(128, ge=2, description="TOTAL images per optimiser step, over all processes")
    accumulate: int = Field(1, ge=1, description="parts that a step's batch is computed in, in turn")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the device has it, else fp32"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of weights, data order and augmentation")
    clip_norm: float = Field(5.0, ge=0, description="limit of the backbone's gradient norm; 0 is off")
    ema: float = Field(0.0, ge=0, lt=1, description="moving average of weights used for evaluation; 0 is off")
    channels_last: bool = Field(True, description="memory layout that convolutions like")
    compile: bool = Field(False, description="torch.compile the backbone (minutes of waiting on a CPU)")
    max_bad_steps: int = Field(20, ge=1, description="stop after this many non-finite steps in a row")
    log_every: int = Field(20, ge=1, description="steps between log lines")


class CheckpointConfig(Section):
    """When to save and what to keep."""

    every: Duration = Field("1 epoch", description="time between checkpoints")
    keep: int = Field(2, ge=1, description="newest checkpoints to keep (the best is kept besides)")


class EvalConfig(Section):
    """Evaluation during training and at its end."""

    sets: dict[str, str] = Field(
        default_factory=lambda: {"synthetic": "synthetic:pairs=2000"},
        description="NAME = PATH of verification protocols; the first one decides which checkpoint is best",
    )
    every: Duration = Field("20%", description="time between evaluations")
    flip: bool = Field(True, description="add the embedding of the mirrored image")
    batch_size: int = Field(128, ge=1, description="images per forward pass")


class Config(Section):
    """Everything that a user decides about a run."""

    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    twin: TwinConfig = TwinConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval: EvalConfig = EvalConfig()

    def to_toml(self) -> str:
        """TOML text of the fields that were set; reading it back gives the same config."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_unset=True))


def load_config(path: str | Path | None = None, settings: Sequence[str] = ()) -> Config:
    """Read a TOML file (or start from the defaults) and apply ``a.b=value`` settings.

    Raises:
        ValueError: the file cannot be read, or all that is wrong with it, one line a mistake.
    """
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(Path(path).read_text())
        except OSError as error:
            raise ValueError(f"cannot read the config {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{path} is not valid TOML: {error}") from None
    for setting in settings:
        _apply(tree, setting)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        where = f"{path}: " if path else ""
        raise ValueError("\n".join(f"{where}{line}" for line in _sentences(error))) from None


def _apply(tree: dict[str, Any], setting: str) -> None:
    key, equals, text = setting.partition("=")
    if not equals or not key:
        raise ValueError(f"--set {setting}: write section.key=value, for example train.batch_size=64")
    *parents, last = key.strip().split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            raise ValueError(f"--set {setting}: '{parent}' is a value, not a section")
    tree[last] = parse_value(text)


def parse_value(text: str) -> Any:
    """A value as TOML writes it; a bare word is a string, so that nobody needs quotes inside quotes."""
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _sentences(error: ValidationError) -> Iterator[str]:
    for item in error.errors():
        key = ".".join(str(part) for part in item["loc"])
        if item["type"] == "extra_forbidden":
            section: Any = Config
            for part in item["loc"][:-1]:
                section = section.model_fields[part].annotation
            yield f"unknown key '{key}'{nearest(str(item['loc'][-1]), section.model_fields)}"
        else:
            message = item["msg"].removeprefix("Value error, ")
            yield f"{key} = {item['input']!r}: {message[0].lower()}{message[1:]}"


def changed_keys(old: Config, new: Config) -> list[str]:
    """Dotted names of the fields in which two configs differ, sorted."""
    a, b = _flat(old.model_dump()), _flat(new.model_dump())
    return sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def explain() -> list[tuple[str, str, str, str]]:
    """Rows (key, type, default, meaning) of every field."""
    return list(_explain(Config, ""))


def _explain(section: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    for name, field in section.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from _explain(annotation, f"{prefix}{name}.")
            continue
        kind = annotation.__name__ if annotation in (int, float, str, bool) else str(annotation)
        if any(getattr(mark, "func", None) is _check_duration for mark in field.metadata):
            kind = "duration"
        kind = re.sub(r"Annotated\[str, AfterValidator\(.*?\)\]", "duration", kind.replace("typing.", ""))
        default = field.get_default(call_default_factory=True, validated_data={})
        yield f"{prefix}{name}", kind, json.dumps(default), field.description or ""


def schema() -> dict[str, Any]:
    """JSON schema of the config file, for editors."""
    return Config.model_json_schema()


def check_batch(batch_size: int, world_size: int, accumulate: int) -> int:
    """Images per process and part.

    Raises:
        ValueError: the total batch does not divide.
    """
    parts = world_size * accumulate
    if batch_size % parts:
        raise ValueError(
            f"train.batch_size = {batch_size} does not divide by {world_size} processes x {accumulate} parts;"
            " "
            f"use a multiple of {parts}, for example {max(1, math.ceil(batch_size / parts)) * parts}"
        )
    return batch_size // parts
