"""Parts of a backbone that a training leaves as they are."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from facescale.backbones.low_rank import add_adapters
from facescale.config import FinetuneConfig


def freeze(backbone: nn.Module, config: FinetuneConfig) -> list[nn.Module]:
    """Keep parts of a network as they are, and give it adapters, as the config says.

    Returns:
        Parts that must stay in evaluation mode: what does not change, and batch norms that keep their
        statistics (with adapters, all of them).

    Raises:
        ValueError: no part has such a name; as ``add_adapters``.
    """
    if config.adapters:
        add_adapters(backbone, config.adapters, config.adapted)
    frozen = _frozen(backbone, config.freeze)
    if config.adapters or config.statistics == "keep":
        frozen += [module for module in backbone.modules() if isinstance(module, _BatchNorm)]
    return frozen


def _frozen(backbone: nn.Module, prefixes: list[str]) -> list[nn.Module]:
    """Parts whose names begin so, made untrainable."""
    frozen = []
    for prefix in prefixes:
        found = [one for name, one in backbone.named_modules() if name and name.startswith(prefix)]
        if not found:
            parts = ", ".join(name for name, _ in backbone.named_children())
            raise ValueError(
                f"finetune.freeze: no part of the backbone begins with '{prefix}'; it has: {parts}"
            )
        frozen += found
    for part in frozen:
        part.requires_grad_(False)
    return frozen
