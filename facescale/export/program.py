"""Write a network as a torch.export program, and run one."""

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.export.resize import area_resize
from facescale.model_card import KEY, Card, Graph
from facescale.ops import embed_views, fuse_views


class ExportGraph(nn.Module):
    """The network with the pre- and postprocessing that the card assigns to the graph."""

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__()
        self.network = network
        self._contract = card.contract
        self._graph = card.graph or Graph()

    @property
    def _resizes(self) -> bool:
        return self._graph.uint8_input and self._contract.resize == "area"

    @property
    def free_axes(self) -> dict[int, str]:
        """Axes of the input whose length the graph leaves open, with their names."""
        return {0: "batch"} | ({1: "height", 2: "width"} if self._resizes else {})

    def example(self) -> Tensor:
        """A batch of two blank inputs."""
        size = self._contract.size
        images = torch.zeros(2, size, size, 3, dtype=torch.uint8)
        if self._resizes:  # equal sides would be taken for one and the same length
            images = torch.zeros(2, size + 2, size + 1, 3, dtype=torch.uint8)
        return images if self._graph.uint8_input else self._contract.normalise(images).contiguous()

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        if self._resizes:
            images = area_resize(images, self._contract.size)
        x = self._contract.normalise(images) if self._graph.uint8_input else images
        if not self._graph.unit_output:
            return self.network(x)  # type: ignore[no-any-return]
        return F.normalize(fuse_views(embed_views(self.network, x, self._contract.flip, axis=-1)))


def write_program(graph: ExportGraph, free_axes: Mapping[int, str], card: Card, path: Path) -> str:
    """Write the graph as a torch.export program; returns the name of what wrote it."""
    axes = dict.fromkeys(free_axes, torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        program = torch.export.export(graph, (graph.example(),), dynamic_shapes=(axes,))
    torch.export.save(program, path, extra_files={f"{KEY}.json": card.to_json()})
    return "torch.export"


class ProgramEncoder:
    """An exported torch.export program as an encoder."""

    def __init__(self, path: Path, embedding_size: int) -> None:
        extra = {f"{KEY}.json": ""}
        self._program = torch.export.load(path, extra_files=extra).module()
        self.card = Card.from_json(extra[f"{KEY}.json"])
        self._graph = self.card.graph or Graph()
        self.unit_output = self._graph.unit_output
        self.embedding_size = embedding_size

    @torch.no_grad()
    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Embed a batch."""
        x = images_BHW3 if self._graph.uint8_input else self.card.contract.normalise(images_BHW3)
        return self._program(x)  # type: ignore[no-any-return]
