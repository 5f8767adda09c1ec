"""A torch network as an encoder."""

import torch
from torch import Tensor, nn

from facescale.model_card import Contract
from facescale.ops import evaluating
from facescale.registry import lookup

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class TorchEncoder:
    """A network on a device, used in evaluation mode without gradient, whatever mode it is in."""

    unit_output = False

    def __init__(self, module: nn.Module, contract: Contract, device: torch.device, precision: str) -> None:
        self.module = module
        self.embedding_size = int(module.embedding_size)  # type: ignore[arg-type]
        self._contract = contract
        self._device = device
        self._dtype = lookup("precision", _PRECISIONS, precision)

    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Raw embedding of each image, on the device."""
        with evaluating(self.module, self._device, self._dtype):
            x = self._contract.normalise(images_BHW3.to(self._device))
            return self.module(x).float()  # type: ignore[no-any-return]
