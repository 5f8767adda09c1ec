"""Build the networks of a training from its config."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from facescale.config import Config
from facescale.data.loading.augment import Augment, stronger
from facescale.data.readers.base import Reader, image_sources
from facescale.distributed import Dist
from facescale.distributed.sharding import shard_network
from facescale.heads.source_margins import SourceMargins, build_source_margins
from facescale.model_card import Card, Contract
from facescale.plan import Plan
from facescale.plan.components import build_head
from facescale.train.freezing import freeze
from facescale.train.pretrained import build_backbone
from facescale.train.task import RecognitionTask
from facescale.train.teacher import make_teacher
from facescale.train.twin import Twin

# Each process has batch statistics of its own; torch 2.13 has another name for that and warns of the old one
_NAMES = inspect.signature(DistributedDataParallel).parameters
_OWN_STATISTICS: dict[str, Any] = {
    "forward_sync_buffers" if "forward_sync_buffers" in _NAMES else "broadcast_buffers": False
}


def build_task(
    config: Config, plan: Plan, dist: Dist, centres: Path, replaced: bool = False
) -> RecognitionTask:
    """Backbone, head and what follows them, with the same first weights on every process.

    Args:
        config: what the user wants.
        plan: what follows from it.
        dist: this process among its peers.
        centres: folder for class centres that are placed on disk.
        replaced: the weights of the backbone are replaced afterwards.

    Raises:
        ValueError: a component refuses its options.
    """
    train = config.train
    torch.manual_seed(train.seed)
    layout = torch.channels_last if train.channels_last else torch.contiguous_format
    spec: dict[str, Any] = {
        "name": config.backbone.name,
        "embedding_size": config.backbone.embedding_size,
        "options": config.backbone.options,
    }
    backbone = build_backbone(config, dist, replaced)
    divide = config.distributed.shard_backbone and dist.world_size > 1
    if not divide:  # else block by block, and as rows of contiguous memory
        backbone = backbone.to(dist.device, memory_format=layout)  # type: ignore[call-overload]
    frozen = freeze(backbone, config.finetune)
    head = build_head(config, plan.num_ids, dist, centres).to(dist.device)
    average = Twin(backbone, momentum=train.ema, schedule="warmup", buffers="copy") if train.ema else None
    twin = _build_twin(config, backbone, dist) if head.needs.key_views else None
    if divide:
        # Of the vision transformer, which adds the positions to a new tensor as it has to
        warnings.filterwarnings("ignore", message=r"FSDP2-wrapped module \(FSDPPatchEmbedding\)")
        for net in (backbone, *(one.net for one in (average, twin) if one)):
            shard_network(net, dist)
    torch.manual_seed(train.seed + 1 + dist.rank)  # dropout differs between processes
    contract = Contract(
        size=int(backbone.input_size),  # type: ignore[arg-type]
        flip=config.eval.flip,
        resize="area" if config.data.resize else "none",
    )
    info = {"data": config.data.train, "num_ids": plan.num_ids, "num_images": plan.num_images}
    return RecognitionTask(
        backbone,
        head,
        Card(contract, spec, info=info),
        net=backbone if divide else _for_training(backbone, train.compile, dist),
        twin=twin,
        average=average,
        augment=Augment(config.augment),
        augment_repeats=Augment(stronger(config.augment)),
        precision=plan.precision,
        dist=dist,
        teacher=make_teacher(config, contract, config.backbone.embedding_size, dist.device, plan.precision),
        frozen=frozen,
        moves_centres=config.finetune.head != "keep",
    )


def source_margins_of(config: Config, reader: Reader) -> SourceMargins:
    """The margins of the config's sources; an identity is of the source of its first image.

    Raises:
        ValueError: as ``build_source_margins``.
    """
    margin = config.head.margin
    _, first_N = np.unique(reader.ids, return_index=True)
    source_N = torch.from_numpy(image_sources(reader)[first_N])
    return build_source_margins(margin.name, margin.options, margin.by_source, source_N)


def _build_twin(config: Config, backbone: nn.Module, dist: Dist) -> Twin:
    twin = config.twin
    return Twin(
        backbone,
        momentum=twin.momentum,
        schedule=twin.schedule,
        buffers=twin.buffers,
        seed=config.train.seed,
        dist=dist,
    )


def _for_training(backbone: nn.Module, compiled: bool, dist: Dist) -> nn.Module:
    """The backbone as the loss is computed through it; DDP averages its gradients over processes."""
    net: nn.Module = torch.compile(backbone) if compiled else backbone  # type: ignore[assignment]
    if dist.world_size == 1:
        return net
    # Of a kernel with one channel, two ways to write the same layout; DDP takes them for different ones
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # Without the third option DDP orders buckets anew after the first step of a sitting, and three processes
    # or more then add in another order: a resumed run would not equal an uninterrupted one bit for bit.
    return DistributedDataParallel(
        net, gradient_as_bucket_view=True, find_unused_parameters=True, **_OWN_STATISTICS
    )
