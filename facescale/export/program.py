"""Write a network as a torch.export program or as compiled code, and run them."""

import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from facescale.export.graph import ExportGraph
from facescale.inference.model import Model
from facescale.model_card import KEY, Card, Graph

_CARD = f"{KEY}.json"


class Program:
    """``graph`` as a torch.export program with any batch size."""

    writer = "torch.export"

    def __init__(self, graph: ExportGraph) -> None:
        self._embedding_size = int(graph.network.embedding_size)  # type: ignore[arg-type]
        self._program = _captured(graph)

    def save(self, path: Path, card: Card) -> None:
        """Write the file, the card as an extra file in it."""
        torch.export.save(self._program, path, extra_files={_CARD: card.to_json()})

    def open(self, path: Path) -> Model:
        """The file as a model."""
        encoder = ProgramEncoder(path, self._embedding_size)
        return Model(encoder, encoder.card)


class CompiledPackage:
    """``graph`` compiled for this kind of CPU by AOTInductor, with any batch size.

    The file holds machine code: load it with ``torch._inductor.aoti_load_package`` only where you trust it.
    `facescale.load` does not.

    Raises:
        ValueError: there is no C++ compiler, or the compiler cannot translate the network.
    """

    writer = "AOTInductor"

    def __init__(self, graph: ExportGraph) -> None:
        self._embedding_size = int(graph.network.embedding_size)  # type: ignore[arg-type]
        program = _captured(graph)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.pt2"
            try:
                torch._inductor.aoti_compile_and_package(program, package_path=str(path))
            except Exception as error:  # the compiler's exceptions have no common base class
                raise ValueError(
                    f"AOTInductor cannot compile this network here ({str(error).splitlines()[0]}); "
                    "it needs a C++ compiler: install g++, or export to .pt2 or .onnx"
                ) from None
            self._package = path.read_bytes()

    def save(self, path: Path, card: Card) -> None:
        """Write the file, the card as an extra file in it."""
        path.write_bytes(self._package)
        with zipfile.ZipFile(path, "a") as archive:
            root = archive.namelist()[0].partition("/")[0]
            archive.writestr(f"{root}/extra/{_CARD}", card.to_json())

    def open(self, path: Path) -> Model:
        """The file as a model."""
        with zipfile.ZipFile(path) as archive:
            name = next(one for one in archive.namelist() if one.endswith(f"/extra/{_CARD}"))
            card = Card.from_json(archive.read(name).decode())
        run = torch._inductor.aoti_load_package(str(path))
        return Model(GraphEncoder(run, card, self._embedding_size), card)


def _captured(graph: ExportGraph) -> torch.export.ExportedProgram:
    axes = dict.fromkeys(graph.free_axes, torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        return torch.export.export(graph, (graph.example(),), dynamic_shapes=(axes,))


class GraphEncoder:
    """An exported graph of torch as an encoder."""

    def __init__(self, run: Callable[[Tensor], Any], card: Card, embedding_size: int) -> None:
        self._run = run
        self.card = card
        self._graph = card.graph or Graph()
        self.unit_output = self._graph.unit_output
        self.embedding_size = embedding_size

    @torch.no_grad()
    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Embed a batch."""
        x = images_BHW3 if self._graph.uint8_input else self.card.contract.normalise(images_BHW3)
        return self._run(x.contiguous())  # type: ignore[no-any-return]


class ProgramEncoder(GraphEncoder):
    """A file of a torch.export program as an encoder."""

    def __init__(self, path: Path, embedding_size: int) -> None:
        extra = {_CARD: ""}
        program = torch.export.load(path, extra_files=extra).module()
        super().__init__(program, Card.from_json(extra[_CARD]), embedding_size)
