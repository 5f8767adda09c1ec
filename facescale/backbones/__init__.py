"""Backbones by name: networks that turn face images into embeddings."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from torch import nn

from facescale import registry
from facescale.backbones.crop import croppable
from facescale.backbones.ffc import FFCMobile, FFCResNet, UnitIResNet
from facescale.backbones.ir import IR
from facescale.backbones.iresnet import IResNet, r2060
from facescale.backbones.mla import MLAIResNet
from facescale.backbones.mobilefacenet import MobileFaceNet
from facescale.backbones.timm_adapter import TimmBackbone
from facescale.backbones.vit import VisionTransformer

BACKBONES: Mapping[str, Callable[..., nn.Module]] = {
    "r10": partial(IResNet, (1, 1, 1, 1)),
    "r18": partial(IResNet, (2, 2, 2, 2)),
    "r34": partial(IResNet, (3, 4, 6, 3)),
    "r50": partial(IResNet, (3, 4, 14, 3)),
    "r100": partial(IResNet, (3, 13, 30, 3)),
    "r200": partial(IResNet, (6, 26, 60, 6)),
    "r2060": r2060,
    "mbf": partial(MobileFaceNet, (1, 4, 6, 2), 2),
    "mbf_large": partial(MobileFaceNet, (2, 8, 12, 4), 4),
    "mbf_s": partial(MobileFaceNet, (1, 4, 6, 2), 1),
    "vit_xs": partial(VisionTransformer, 128, 4, 4),
    "vit_t": partial(VisionTransformer, 256, 12, 8),
    "vit_s": partial(VisionTransformer, 512, 12, 8),
    "vit_b": partial(VisionTransformer, 512, 24, 8),
    "vit_l": partial(VisionTransformer, 768, 24, 8),
    "vit_h": partial(VisionTransformer, 1024, 48, 8),
    "mla_r10": partial(MLAIResNet, (1, 1, 1, 1)),
    "mla_r18": partial(MLAIResNet, (2, 2, 2, 2)),
    "mla_r34": partial(MLAIResNet, (3, 4, 6, 3)),
    "mla_r50": partial(MLAIResNet, (3, 4, 14, 3)),
    "mla_r100": partial(MLAIResNet, (3, 13, 30, 3)),
    "mla_r200": partial(MLAIResNet, (6, 26, 60, 6)),
    "ffc_mobile": FFCMobile,
    "ffc_ir50": partial(UnitIResNet, (3, 4, 14, 3)),
    "ffc_r50": partial(FFCResNet, (3, 4, 6, 3)),
    "ir18": partial(IR, (2, 2, 2, 2), False),
    "ir34": partial(IR, (3, 4, 6, 3), False),
    "ir50": partial(IR, (3, 4, 14, 3), False),
    "ir101": partial(IR, (3, 13, 30, 3), False),
    "ir_se50": partial(IR, (3, 4, 14, 3), True),
    "ir_se101": partial(IR, (3, 13, 30, 3), True),
}


def factory(name: str) -> Callable[..., nn.Module]:
    """The factory of the backbone ``name``, from the table or ``timm:NAME``.

    Raises:
        ValueError: unknown name.
    """
    if name.startswith("timm:"):
        return croppable(partial(TimmBackbone, name.removeprefix("timm:")))
    return croppable(registry.lookup("backbone", BACKBONES, name))


def build(name: str, embedding_size: int = 512, **options: Any) -> nn.Module:
    """Build the backbone ``name``: one of ``BACKBONES``, or ``timm:NAME`` for a model of the timm package.

    It maps normalised float images (B, 3, S, S) to embeddings (B, embedding_size) and has the attributes
    ``embedding_size`` and ``input_size`` (S, pixels). All networks of any input size take ``crop``, see
    ``croppable``.

    Raises:
        ValueError: unknown name, an option that the backbone does not have, a value of another type, or a
            size that is not positive.
    """
    for size_name, size in (("embedding_size", embedding_size), ("input_size", options.get("input_size", 1))):
        if type(size) is not int or size < 1:
            raise ValueError(f"{size_name} is {size!r}; it must be a positive whole number")
    return registry.build("backbone", {name: factory(name)}, name, embedding_size, **options)
