"""What a plain PyTorch program does for each stage: the alternative that ratios refer to.

Pillow decodes, torch's DataLoader loads with worker processes, the network is of torch's own layers in
float32 and contiguous memory, the loss is CosFace over one dense matrix, SGD moves all of it.
"""

import io
import time
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from facescale.backbones.layers import GroupedConv2d, PReLU
from facescale.backbones.norm import BatchNorm2d
from facescale.data.readers.base import Reader
from facescale.distributed import Dist
from facescale.plan.dense import DenseSoftmax


class PlainDataset(Dataset[tuple[Tensor, int]]):
    """One decoded, flipped, normalised float tensor (3, H, W) per sample."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        data, identity = self._reader[index]
        pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) if isinstance(data, bytes) else data
        image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.5)
        return (image.flip(2) if torch.rand(()) < 0.5 else image), identity


def plain_loader(reader: Reader, batch_size: int, workers: int) -> DataLoader[tuple[Tensor, int]]:
    """Shuffled batches of float images (B, 3, H, W) and identities (B,)."""
    return DataLoader(PlainDataset(reader), batch_size, shuffle=True, num_workers=workers, drop_last=True)


def forever(loader: DataLoader[tuple[Tensor, int]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Its batches, epoch after epoch."""
    while True:
        yield from loader


def plain_layers(net: nn.Module) -> nn.Module:
    """The same network out of torch's own layers."""
    for module in net.modules():
        if isinstance(module, PReLU):
            module.__class__ = nn.PReLU  # type: ignore[assignment]
        elif isinstance(module, BatchNorm2d):
            module.__class__ = nn.BatchNorm2d  # type: ignore[assignment]
        elif isinstance(module, GroupedConv2d):
            module.__class__ = nn.Conv2d  # type: ignore[assignment]
    return net


class PlainTraining:
    """A training step: embeddings, dense softmax with CosFace's margin, SGD over everything."""

    def __init__(self, net: nn.Module, num_ids: int, device: torch.device) -> None:
        self._net, self._device = plain_layers(net).to(device).train(), device
        self._head = DenseSoftmax(num_ids, int(net.embedding_size), Dist(device=device))  # type: ignore[arg-type]
        parameters = [*self._net.parameters(), self._head.weight_CD]
        self._optimizer = torch.optim.SGD(parameters, lr=1e-3, momentum=0.9, weight_decay=5e-4)

    def __call__(self, images_B3HW: Tensor, id_B: Tensor) -> None:
        """One step."""
        embedding_BD = self._net(images_B3HW.to(self._device))
        self._head.loss(embedding_BD, id_B.to(self._device)).backward()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)


def wait(device: torch.device) -> float:
    """The time on the clock when the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
