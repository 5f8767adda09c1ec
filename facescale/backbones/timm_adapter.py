"""Any image model of the timm package as a backbone: ``timm:NAME``."""

from typing import Any

import torch
from torch import Tensor, nn

from facescale.backbones.layers import in_full_precision
from facescale.guard.reading import reason


class TimmBackbone(nn.Module):
    """A timm model whose classifier produces the embedding, with a batch norm after it.

    Args:
        model: its name in timm.
        embedding_size: width of the embedding.
        pretrained: start from timm's weights, which timm downloads if its cache does not hold them.
        input_size: side of the (square) image in pixels.
        checkpointing: recompute activations in the backward pass instead of keeping them. timm does this
            itself, so the running statistics of batch norms are updated twice per step.

    Raises:
        ValueError: timm is not installed, has no such model, or cannot get its weights.
    """

    def __init__(
        self,
        model: str,
        embedding_size: int = 512,
        *,
        pretrained: bool = False,
        input_size: int = 112,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.embedding_size = embedding_size
        self.input_size = input_size
        self.net = _create(model, embedding_size, input_size, pretrained)
        if checkpointing:
            self.net.set_grad_checkpointing(True)
        self.features = nn.BatchNorm1d(embedding_size)

    def forward(self, x: Tensor) -> Tensor:
        """Map normalised images (B, 3, S, S) to embeddings (B, embedding_size) that are not unit vectors."""
        return in_full_precision(self.features, self.net(x))


def _create(model: str, embedding_size: int, input_size: int, pretrained: bool) -> Any:
    try:
        import timm
    except ImportError as error:
        raise ValueError(
            f"backbone 'timm:{model}' needs the timm package ({error}); pip install 'facescale[timm]'"
        ) from None
    if not timm.is_model(model):
        raise ValueError(f"timm has no model '{model}'; timm.list_models() lists its models")
    described = torch.get_default_device().type == "meta"  # nothing is downloaded to count parameters
    options: dict[str, Any] = {"pretrained": pretrained and not described, "num_classes": embedding_size}
    try:
        try:
            return timm.create_model(model, img_size=input_size, **options)
        except TypeError:  # a convolutional network, which takes any size and no such option
            return timm.create_model(model, **options)
    except (OSError, RuntimeError, ValueError) as error:
        if not options["pretrained"]:
            raise
        raise ValueError(
            f"the weights of 'timm:{model}' cannot be downloaded ({reason(error)}); get them where there "
            "is a connection and copy timm's cache, or set backbone.pretrained = false"
        ) from None
