"""The network with what an exported graph does around it: pixels in, final embedding out."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from facescale.arrays import Pixels
from facescale.data.loading.decode import resized
from facescale.model_card import Card, Contract, Graph
from facescale.ops import embed_views, fuse_views

# B batch, H W height and width that come in, S side that the network takes


class Resize(nn.Module):
    """Scale square images as the data loader does, by two matrix products, which every runtime has.

    Both filters of the loader are linear and work on rows and columns apart, so each is a matrix. The values
    are rounded to whole pixels after each, as Pillow does.

    Args:
        given: side that comes in, pixels.
        wanted: side that goes out.
    """

    def __init__(self, given: int, wanted: int) -> None:
        super().__init__()
        self.columns_GS: Tensor
        self.register_buffer("columns_GS", torch.from_numpy(_filter(given, wanted)).T.contiguous())

    def forward(self, x_B3HW: Tensor) -> Tensor:
        """Pixels 0..255 of ``given`` side -> those of ``wanted`` side."""
        across = _whole(x_B3HW @ self.columns_GS)
        return _whole(self.columns_GS.T @ across)


def _whole(x: Tensor) -> Tensor:
    return (x + 0.5).floor().clamp(0, 255)


def _filter(given: int, wanted: int) -> npt.NDArray[np.float32]:
    """Rows (wanted, given) of weights, read off a picture with one bright column for each pixel."""
    method = resize_method(given, wanted)
    unit = Image.fromarray(np.eye(given, dtype=np.float32))
    return np.asarray(unit.resize((wanted, given), method)).T.copy()


def resize_method(given: int, wanted: int) -> Image.Resampling:
    """The filter of `facescale.data.loading.decode.resized`."""
    return Image.Resampling.BOX if wanted <= given else Image.Resampling.BICUBIC


class ExportGraph(nn.Module):
    """The network with the pre- and postprocessing that the card assigns to the graph.

    Args:
        network: (B, 3, S, S) -> (B, d).
        card: contract of the network, and what the graph does by itself.
        outside: contract that callers of the graph follow; the graph scales, recolours and normalises from
            it to the network's. None: the network's, at the card's ``graph.input_size``.
        half: the network computes in fp16.
    """

    def __init__(
        self, network: nn.Module, card: Card, outside: Contract | None = None, half: bool = False
    ) -> None:
        super().__init__()
        self.network = network.half() if half else network
        self._inside = card.contract
        self._graph = card.graph or Graph()
        self._outside = outside or seen_from_outside(card)
        self._half = half
        given, wanted = self._outside.size, self._inside.size
        self.resize = None if given == wanted else Resize(given, wanted)

    def example(self) -> Tensor:
        """A batch of two blank inputs."""
        side = self._outside.size
        images = torch.zeros(2, side, side, 3, dtype=torch.uint8)
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
        if self._graph.uint8_input and self.resize is None:
            return inside.normalise(images)
        if not self._graph.uint8_input and inside == outside:
            return images
        if self._graph.uint8_input:
            x, colour = images.permute(0, 3, 1, 2).float(), "RGB"
        else:
            x, colour = images * outside.std + outside.mean, outside.colour
        if self.resize is not None:
            x = self.resize(x)
        if colour != inside.colour:
            x = x.flip(1)
        return (x - inside.mean) / inside.std

    def _embed(self, x: Tensor) -> Tensor:
        if self._half:
            return self.network(x.half()).float()  # type: ignore[no-any-return]
        return self.network(x)  # type: ignore[no-any-return]


def seen_from_outside(card: Card) -> Contract:
    """The contract of a graph that may scale its images itself: the size is that of its input."""
    given = card.graph.input_size if card.graph else 0
    return replace(card.contract, size=given) if given else card.contract


def same_faces(faces_NHW3: Pixels, size: int) -> Pixels:
    """Faces (N, H, W, 3) as a graph that takes ``size`` pixels gets them, by the loader's rule."""
    if faces_NHW3.shape[1] == size:
        return faces_NHW3
    return np.stack([resized(face, size, size) for face in faces_NHW3])
