"""The network with what an exported graph does around it: pixels in, final embedding out."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.arrays import Pixels
from facescale.data.loading.decode import resized
from facescale.export.resize import area_resize
from facescale.model_card import Card, Contract, Graph
from facescale.ops import embed_views, fuse_views

# B batch, H W height and width that come in, S side that the network takes


class ExportGraph(nn.Module):
    """The network with the pre- and postprocessing that the card assigns to the graph.

    Args:
        network: (B, 3, S, S) -> (B, d).
        card: contract of the network, and what the graph does by itself.
        outside: contract of the float images that come in, where it is not the network's: the graph scales,
            recolours and normalises them.
        half: the network computes in fp16.
    """

    def __init__(
        self, network: nn.Module, card: Card, outside: Contract | None = None, half: bool = False
    ) -> None:
        super().__init__()
        self.network = network.half() if half else network
        self._inside = card.contract
        self._outside = outside or card.contract
        self._graph = card.graph or Graph()
        self._half = half

    @property
    def _resizes(self) -> bool:
        return self._graph.uint8_input and self._inside.resize == "area"

    @property
    def free_axes(self) -> dict[int, str]:
        """Axes of the input whose length the graph leaves open, with their names."""
        return {0: "batch"} | ({1: "height", 2: "width"} if self._resizes else {})

    def example(self) -> Tensor:
        """A batch of two blank inputs."""
        size = self._outside.size
        images = torch.zeros(2, size, size, 3, dtype=torch.uint8)
        if self._resizes:  # equal sides would be taken for one and the same length
            images = torch.zeros(2, size + 2, size + 1, 3, dtype=torch.uint8)
        return images if self._graph.uint8_input else self._outside.normalise(images).contiguous()

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        x = self._prepared(images)
        if not self._graph.unit_output:
            return self._embed(x)
        return F.normalize(fuse_views(embed_views(self._embed, x, self._inside.flip, axis=-1)))

    def _prepared(self, images: Tensor) -> Tensor:
        """What the network takes, of what the graph takes."""
        inside, outside = self._inside, self._outside
        if self._resizes:
            images = area_resize(images, inside.size)
        if self._graph.uint8_input:
            return inside.normalise(images)
        if inside == outside:
            return images
        pixels = (images * outside.std + outside.mean).permute(0, 2, 3, 1)
        if outside.colour == "BGR":
            pixels = pixels.flip(-1)
        return inside.normalise(pixels if inside.size == outside.size else area_resize(pixels, inside.size))

    def _embed(self, x: Tensor) -> Tensor:
        if self._half:
            return self.network(x.half()).float()  # type: ignore[no-any-return]
        return self.network(x)  # type: ignore[no-any-return]


def same_faces(faces_NHW3: Pixels, size: int) -> Pixels:
    """Faces (N, H, W, 3) as a graph that takes ``size`` pixels gets them, by the loader's rule."""
    if faces_NHW3.shape[1] == size:
        return faces_NHW3
    return np.stack([resized(face, size, size) for face in faces_NHW3])
