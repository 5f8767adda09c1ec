"""Write a network as a torch.export program, and run one."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale.model_card import KEY, Card, Graph
from facescale.ops import embed_views, fuse_views


class ExportGraph(nn.Module):
    """The network with the pre- and postprocessing that the card assigns to the graph."""

    def __init__(self, network: nn.Module, card: Card) -> None:
        super().__init__()
        self.network = network
        self._contract = card.contract
        self._graph = card.graph or Graph()

    def example(self) -> Tensor:
        """A batch of two blank inputs."""
        size = self._contract.size
        images = torch.zeros(2, size, size, 3, dtype=torch.uint8)
        return images if self._graph.uint8_input else self._contract.normalise(images).contiguous()

    def forward(self, images: Tensor) -> Tensor:
        """Embed a batch."""
        x = self._contract.normalise(images) if self._graph.uint8_input else images
        if not self._graph.unit_output:
            return self.network(x)  # type: ignore[no-any-return]
        return F.normalize(fuse_views(embed_views(self.network, x, self._contract.flip, axis=-1)))


def write_program(graph: ExportGraph, card: Card, path: Path) -> str:
    """Write the graph as a torch.export program; returns the name of what wrote it."""
    with torch.no_grad():
        program = torch.export.export(
            graph, (graph.example(),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
        )
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
