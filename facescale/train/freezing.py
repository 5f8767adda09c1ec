"""Parts of a backbone that a training leaves as they are."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from facescale.backbones.low_rank import add_adapters
from facescale.config import FinetuneConfig


def adapt(backbone: nn.Module, config: FinetuneConfig) -> list[nn.Module]:
    """Give a network the adapters of ``config``, if any, and keep all else of it as it is.

    Returns:
        The batch norms, whose statistics must stay, too: they are to be kept in evaluation mode.

    Raises:
        ValueError: as ``add_adapters``.
    """
    if not config.adapters:
        return []
    add_adapters(backbone, config.adapters, config.adapted)
    return [module for module in backbone.modules() if isinstance(module, _BatchNorm)]


def freeze(backbone: nn.Module, prefixes: list[str]) -> list[nn.Module]:
    """Keep parts of a network as they are; returns them, so that they stay in evaluation mode.

    Raises:
        ValueError: no part has such a name.
    """
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
