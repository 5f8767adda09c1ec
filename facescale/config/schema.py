"""The configuration of a run: frozen models, strict TOML, one sentence per mistake."""

from typing import Annotated, Any, Literal, get_args, get_origin

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from facescale.config.duration import Duration, RunLength


class Section(BaseModel):
    """Base of all parts of a config: immutable, unknown keys are mistakes, a value has its field's type.

    A boolean or a text is not a number; infinity and NaN are refused.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, strict=True, allow_inf_nan=False
    )


class Component(Section):
    """A named component; keys beside ``name`` and the declared ones are options of that component."""

    model_config = ConfigDict(extra="allow")

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """The options that go to the component itself."""
        return dict(self.model_extra or {})


class DataConfig(Section):
    """Where the training images come from."""

    train: str | list[str] = Field(
        "synthetic:ids=1000,images=20", description="folder, .rec file or another format; a list is joined"
    )
    workers: int = Field(2, ge=0, description="decoding threads; they do not change the data order")
    resize: bool = Field(False, description="scale images of another size than the backbone takes")
    min_images: int = Field(1, ge=1, description="leave out identities with fewer images")
    edits: str | list[str] = Field(
        default_factory=list, description="edit lists: images to drop or move, identities to drop or merge"
    )
    sampling: Literal["images", "balanced", "pxk"] = Field(
        "images", description="each image once per epoch; identities in turn; in turn by groups (P x K)"
    )
    images_per_identity: int = Field(4, ge=2, description="pxk: K, successive images of an identity")
    weights: list[float] = Field(
        default_factory=list, description="per source: how often its images come per epoch; empty: all 1"
    )
    max_bad_share: float = Field(
        0.01, ge=0, le=1, description="share of unreadable images that stops the run"
    )


class AugmentConfig(Section):
    """What happens to a training image, on the device; probabilities 0..1, all off but flip."""

    flip: bool = Field(True, description="mirror half of the images")
    shift: int = Field(0, ge=0, le=56, description="move by up to this many pixels in x and y")
    scale: float = Field(0.0, ge=0, le=0.5, description="zoom by up to this share in and out")
    rotate: float = Field(0.0, ge=0, le=45, description="turn by up to this many degrees")
    brightness: float = Field(0.0, ge=0, le=1, description="change of brightness, up to this share")
    contrast: float = Field(0.0, ge=0, le=1, description="change of contrast, up to this share")
    saturation: float = Field(0.0, ge=0, le=1, description="change of saturation, up to this share")
    hue: float = Field(0.0, ge=0, le=0.5, description="change of hue, up to this share of the circle")
    grey: float = Field(0.0, ge=0, le=1, description="probability of a grey image")
    mask: float = Field(0.0, ge=0, le=1, description="probability of a synthetic mask over the mouth")
    blur: float = Field(0.0, ge=0, le=1, description="probability of Gaussian blur, sigma 0.4 to 2 pixels")
    resize_down: float = Field(
        0.0, ge=0, le=1, description="probability of shrinking to 50-95 % and back, bilinear"
    )
    low_resolution: float = Field(
        0.0, ge=0, le=1, description="probability of shrinking to 20-90 % and back, by area average"
    )
    erase: float = Field(0.0, ge=0, le=1, description="probability of a blanked rectangle")


class BackboneConfig(Component):
    """The network; further keys are its own options (``facescale list backbones``)."""

    name: str = Field("mbf", description="one of: facescale list backbones")
    embedding_size: int = Field(512, ge=8, description="dimension of the embedding")


class MarginConfig(Component):
    """The margin; further keys are its own options (scale, m, ...)."""

    name: str = Field("cosface", description="one of: facescale list margins")
    ramp: Duration = Field("0%", description="the margin grows from 0 to its value over this time")
    by_source: list[dict[str, Any]] = Field(
        default_factory=list, description="options that differ by source: [{m = 0.5}, {m = 0.3}]"
    )


class HeadConfig(Component):
    """The head; further keys are its own options."""

    name: str = Field("full", description="one of: facescale list heads")
    margin: MarginConfig = Field(default_factory=lambda: MarginConfig(), description="see [head.margin]")


class TwinConfig(Section):
    """The momentum encoder, for heads that need one (attfc, f2c)."""

    momentum: float = Field(0.999, ge=0, lt=1, description="fraction of the old weights kept per step")
    schedule: Literal["constant", "warmup", "cosine"] = Field(
        "warmup",
        description="of the momentum; warmup: lower at first; constant: as in the releases; "
        "cosine: rises to 1 at the end",
    )
    buffers: Literal["own", "copy", "average"] = Field(
        "own",
        description="batch norm uses the statistics of the batch (own), the backbone's running ones (copy) "
        "or their moving average (average)",
    )


Decay = Annotated[float, Field(ge=0, lt=1)]
Factor = Annotated[float, Field(gt=0, le=1)]


class OptimConfig(Section):
    """Optimizer and learning-rate schedule."""

    name: Literal["sgd", "adamw"] = Field("sgd", description="optimizer")
    lr: float = Field(0.1, gt=0, description="learning rate at the reference batch")
    reference_batch: int = Field(
        512, ge=1, description="total batch that lr is meant for; the rate scales with the real batch"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="sgd: momentum")
    nesterov: bool = Field(False, description="sgd: Nesterov momentum")
    betas: tuple[Decay, Decay] = Field(
        (0.9, 0.999), strict=False, description="adamw: decay of the two averages"
    )
    weight_decay: float = Field(5e-4, ge=0, description="decay of weights (not of norms, biases, PReLU)")
    schedule: Literal["polynomial", "cosine", "multistep"] = Field(
        "polynomial", description="shape of the learning rate over the run"
    )
    warmup: Duration = Field("0%", description="linear rise at the start")
    power: float = Field(1.0, gt=0, description="polynomial: exponent of the decay")
    milestones: list[Duration] = Field(
        default_factory=list, description="multistep: when the rate drops, from the start of the run"
    )
    gammas: list[Factor] = Field(
        [0.1], min_length=1, description="multistep: factor of each drop; one for all, or one per milestone"
    )
    compat: bool = Field(
        False,
        description="as released: decay of every parameter; the first step of the warm-up at full rate "
        "(polynomial, cosine) or at rate 0 (multistep)",
    )

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, nesterov: bool, others: ValidationInfo) -> bool:
        if nesterov and others.data.get("momentum") == 0:
            raise ValueError("Nesterov momentum needs optim.momentum above 0 (0.9 is usual)")
        return nesterov

    @field_validator("gammas")
    @classmethod
    def _one_per_milestone(cls, gammas: list[float], others: ValidationInfo) -> list[float]:
        milestones = others.data.get("milestones", gammas)
        if len(gammas) not in (1, len(milestones)):
            raise ValueError(
                f"{len(gammas)} factors for {len(milestones)} optim.milestones; give one for all, or one each"
            )
        return gammas


class TrainConfig(Section):
    """Length, batch, precision and safety of the training."""

    duration: RunLength = Field("20 epochs", description="length of the run")
    init: str = Field(
        "", description="run or weights to start from: its network, a run's class centres by identity name"
    )
    batch_size: int = Field(128, ge=2, description="TOTAL images per optimizer step, over all processes")
    accumulate: int = Field(1, ge=1, description="number of micro-batches per optimizer step; saves memory")
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="auto: bf16 where the device has it, else fp32"
    )
    seed: int = Field(0, ge=0, lt=2**31, description="seed of weights, data order and augmentation")
    clip_norm: float = Field(5.0, ge=0, description="largest norm of the backbone's gradient; 0 is off")
    ema: float = Field(
        0.0, ge=0, lt=1, description="decay of the averaged weights, which are evaluated; 0: off"
    )
    channels_last: bool = Field(True, description="memory layout in which convolutions are fastest")
    compile: bool = Field(False, description="torch.compile the backbone (takes minutes on a CPU)")
    max_bad_steps: int = Field(20, ge=1, description="stop after this many non-finite steps in a row")
    roll_back_after: int = Field(
        0, ge=0, description="non-finite steps in a row before the run goes back to a checkpoint; 0: never"
    )
    roll_back_rate: float = Field(
        0.5, gt=0, lt=1, description="factor on the learning rate each time the run goes back"
    )
    log_every: int = Field(20, ge=1, description="steps between log lines")

    @field_validator("roll_back_after")
    @classmethod
    def _before_the_stop(cls, after: int, others: ValidationInfo) -> int:
        limit = others.data.get("max_bad_steps", after)
        if after > limit:
            raise ValueError(
                f"{after} is never reached, as train.max_bad_steps = {limit} stops the run before; use at "
                f"most {limit}"
            )
        return after


class FinetuneConfig(Section):
    """What is special in a run that starts from another one (``train.init``)."""

    head: Literal["inherit", "extend", "keep", "replace"] = Field(
        "inherit",
        description="class centres: those of people in the data; extend: the old run's people stay as "
        "classes without images, too; keep: as extend, and no centre moves; replace: all are new",
    )
    new_centres: Literal["random", "mean"] = Field(
        "random", description="start of a new centre; mean: of the person's embeddings by the old network"
    )
    distil: float = Field(0.0, ge=0, description="weight of staying near the old network's embeddings")
    mix: float = Field(
        0.0, ge=0, lt=1, description="share of the head's embeddings that come from the old network (MixBCT)"
    )
    teacher: str = Field("", description="the old network, run or weights; empty: train.init")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="factor on the learning rate from each block to the one before"
    )
    freeze: list[str] = Field(
        default_factory=list, description="beginnings of the names of frozen parts of the backbone"
    )
    statistics: Literal["follow", "keep"] = Field(
        "follow", description="of batch norms: of the new images, or those of the old run, which forgets less"
    )
    adapters: int = Field(
        0, ge=0, description="rank of low-rank adapters (LoRA); all else of the vision transformer is frozen"
    )
    adapted: Literal["attention", "attention+mlp"] = Field(
        "attention", description="layers that get adapters: attention, or attention and MLPs"
    )


class CheckpointConfig(Section):
    """When to save and what to keep."""

    every: Duration = Field("1 epoch", description="time between checkpoints")
    keep: int = Field(2, ge=1, description="newest checkpoints to keep, beside the best one")
    background: bool = Field(
        False, description="write while the training goes on; needs memory for a copy of the state"
    )
    best_by: str = Field(
        "",
        description="figure that chooses the best checkpoint, NAME/METRIC; empty: the first accuracy",
    )


class EvalConfig(Section):
    """Evaluation during training and at its end."""

    sets: dict[str, str] = Field(
        default_factory=lambda: {"synthetic": "synthetic:pairs=2000"},
        description="NAME = PATH of protocols, as for facescale evaluate --on",
    )
    every: Duration = Field("20%", description="time between evaluations")
    limit: int = Field(
        0, ge=0, description="measure a fixed part: so many pairs, images or templates of each; 0: all"
    )
    flip: bool = Field(True, description="add the embedding of the mirrored image (flip fusion)")
    batch_size: int = Field(128, ge=1, description="images per forward pass")


class DistributedConfig(Section):
    """Several processes: how long they wait for each other, and what they share."""

    timeout: float = Field(
        120.0, gt=0, description="seconds that a step waits for another process before the run stops"
    )
    first_timeout: float = Field(
        600.0, gt=0, description="the same up to the end of the first step, when processes start"
    )
    shard_backbone: bool = Field(
        False,
        description="divide the backbone's weights, gradients and optimizer state over the processes "
        "(fully_shard), for one that does not fit",
    )


class Config(Section):
    """Everything that a user decides about a run."""

    data: DataConfig = DataConfig()
    augment: AugmentConfig = AugmentConfig()
    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = HeadConfig()
    twin: TwinConfig = TwinConfig()
    optim: OptimConfig = OptimConfig()
    train: TrainConfig = TrainConfig()
    finetune: FinetuneConfig = FinetuneConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    eval: EvalConfig = EvalConfig()
    distributed: DistributedConfig = DistributedConfig()

    def to_toml(self) -> str:
        """TOML text of the fields that were set; reading it back gives the same config."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_unset=True))


def takes_text(key: tuple[str, ...]) -> bool:
    """Whether the value of a key such as ("data", "train") may be a text."""
    kind: Any = Config
    for name in key:
        if isinstance(kind, type) and issubclass(kind, Section):
            field = kind.model_fields.get(name)
            kind = None if field is None else field.annotation
        else:  # a table of values of one type
            kind = get_args(kind)[1] if get_origin(kind) is dict else None
    return kind is str or str in get_args(kind)
