"""A torch network as an encoder."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from facescale.model_card import Contract
from facescale.ops import PRECISIONS, autocast
from facescale.registry import lookup


class TorchEncoder:
    """A network on a device, used in evaluation mode without gradient, whatever mode it is in."""

    unit_output = False

    def __init__(self, module: nn.Module, contract: Contract, device: torch.device, precision: str) -> None:
        self.module = module
        self.embedding_size = int(module.embedding_size)  # type: ignore[arg-type]
        self._contract = contract
        self._device = device
        lookup("precision", PRECISIONS, precision)
        self._precision = precision

    @torch.no_grad()
    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Raw embedding of each image, on the device."""
        x = self._contract.normalise(images_BHW3.to(self._device))
        with _evaluating(self.module), autocast(self._device, self._precision):
            return self.module(x).float()  # type: ignore[no-any-return]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every sub-module has its own mode again (some may be frozen)."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
