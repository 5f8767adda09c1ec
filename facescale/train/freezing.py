"""Parts of a backbone that a training leaves as they are."""

from torch import nn


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
