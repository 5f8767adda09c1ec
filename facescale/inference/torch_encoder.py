"""A torch network as an encoder."""

import torch
from torch import Tensor, nn

from facescale.model_card import Contract
from facescale.ops import PRECISIONS, evaluating
from facescale.registry import lookup


class TorchEncoder:
    """A network on a device, used in evaluation mode without gradient, whatever mode it is in."""

    unit_output = False

    @property
    def setting(self) -> str:
        """Where and how the network computes: other devices and precisions round otherwise."""
        return f"{self._device.type} {self._precision}"

    def __init__(self, module: nn.Module, contract: Contract, device: torch.device, precision: str) -> None:
        self.module = module
        self.embedding_size = int(module.embedding_size)  # type: ignore[arg-type]
        self._contract = contract
        self._device = device
        lookup("precision", PRECISIONS, precision)
        self._precision = precision

    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Raw embedding of each image, on the device."""
        with evaluating(self.module, self._device, self._precision):
            x = self._contract.normalise(images_BHW3.to(self._device))
            return self.module(x).float()  # type: ignore[no-any-return]
