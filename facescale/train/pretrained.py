"""Weights of timm that a training starts from: checked and announced before they are downloaded."""

import warnings

from torch import nn

from facescale import backbones
from facescale.backbones.profile import skeleton
from facescale.config import Config
from facescale.distributed import Dist
from facescale.guard.failures import NoticeWarning


def check_network(config: Config) -> None:
    """Make sure that a network of timm can be made, from names and shapes alone: nothing is downloaded.

    Raises:
        ValueError: timm is not installed, has no such model, or refuses its options.
    """
    spec = config.backbone
    if spec.name.startswith("timm:"):
        skeleton(spec.name, spec.embedding_size, **spec.options)


def build_backbone(config: Config, dist: Dist, replaced: bool) -> nn.Module:
    """The backbone of a config, in host memory; all processes call.

    With ``backbone.pretrained`` the main process says that weights are downloaded, and is the first to do it:
    the others find them in timm's cache, if they share it.

    Args:
        config: of the run.
        dist: this process among its peers.
        replaced: its weights come from a checkpoint or from ``train.init``, so none are downloaded.

    Raises:
        ValueError: as `facescale.backbones.build`; the weights cannot be downloaded.
    """
    spec = config.backbone
    options = dict(spec.options)
    if replaced or not options.get("pretrained"):
        options.pop("pretrained", None)
        return backbones.build(spec.name, spec.embedding_size, **options)
    if not dist.is_main:
        dist.barrier()
    else:
        said = f"backbone.pretrained: timm downloads the weights of '{spec.name}', unless its cache has them"
        warnings.warn(said, NoticeWarning, stacklevel=2)
    net = backbones.build(spec.name, spec.embedding_size, **options)
    if dist.is_main:
        dist.barrier()
    return net
