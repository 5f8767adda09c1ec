"""Write a network as an ONNX file that says how to use it (needs the extra ``export``)."""

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from facescale.export.graph import ExportGraph
from facescale.inference.load import load_onnx
from facescale.inference.model import Model
from facescale.model_card import KEY, Card, Graph

_FILE_LIMIT = 2**31 - 2**20  # bytes that one protobuf file can hold, less room for the graph itself
_OPSETS = range(13, 21)


class OnnxFile:
    """``graph`` as an ONNX model in memory, with any batch size.

    Attributes:
        writer: which exporter made it, and the operator set.
        model: the ``onnx.ModelProto``; quantisation replaces it.

    Raises:
        ValueError: the onnx package is missing, no such operator set, too many weights for one file.
    """

    def __init__(self, graph: ExportGraph, opset: int = 17, half_weights: bool = False) -> None:
        onnx = _onnx()
        if opset not in _OPSETS:
            raise ValueError(f"opset {opset} is not supported; choose {_OPSETS[0]} to {_OPSETS[-1]}")
        num_bytes = sum(weight.numel() * weight.element_size() for weight in graph.state_dict().values())
        if num_bytes > _FILE_LIMIT:
            raise ValueError(
                f"the network has {num_bytes / 2**30:.1f} GB of weights and an ONNX file holds 2 GB; "
                "export to .pt2 or .safetensors"
            )
        self.model, exporter = _captured(graph, opset, onnx)
        if half_weights:
            _halve(self.model)
        self.writer = f"ONNX ({exporter} exporter, opset {self.model.opset_import[0].version})"

    def save(self, path: Path, card: Card) -> None:
        """Write the file with the card in its metadata."""
        onnx = _onnx()
        onnx.helper.set_model_props(self.model, {KEY: card.to_json()})
        self.model.doc_string = describe(card)
        self.model.producer_name = KEY
        onnx.save(self.model, path)

    def open(self, path: Path) -> Model:
        """The file as a model, run by ONNX Runtime."""
        return load_onnx(path, "cpu")


def _onnx() -> Any:
    try:
        import onnx
        import onnx.helper
    except ImportError:
        raise ValueError(
            "ONNX export needs the onnx package; install: pip install 'facescale[export]'"
        ) from None
    return onnx


def _captured(graph: ExportGraph, opset: int, onnx: Any) -> tuple[Any, str]:
    """The model, and the name of the exporter that captured it."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of exporter internals; the written file is compared
        names: dict[str, Any] = {"input_names": ["images"], "output_names": ["embedding"]}
        try:
            # It takes 1 second where its successor takes 10, but torch will remove it.
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "model.onnx"
                torch.onnx.export(
                    graph,
                    (graph.example(),),
                    path,
                    dynamo=False,
                    opset_version=opset,
                    dynamic_axes={"images": graph.free_axes, "embedding": {0: "batch"}},
                    **names,
                )
                return onnx.load(path), "tracing"
        except Exception:
            program = torch.onnx.export(
                graph,
                (graph.example(),),
                dynamo=True,
                opset_version=max(opset, 18),  # the lowest that it writes
                dynamic_shapes=(graph.free_axes,),
                verbose=False,
                **names,
            )
            assert program is not None
            return program.model_proto, "dynamo"


def describe(card: Card) -> str:
    """A sentence about input and output, shown by model viewers."""
    contract, graph = card.contract, card.graph or Graph()
    side = contract.size
    takes = f"uint8 RGB pixels (batch, {side}, {side}, 3)"
    if graph.uint8_input and contract.resize == "area":
        takes = f"uint8 RGB pixels (batch, height, width, 3), which it scales to {side} x {side}"
    if not graph.uint8_input:
        takes = (
            f"float32 (batch, 3, {side}, {side}), channels {contract.colour}, "
            f"(v - {contract.mean:g}) / {contract.std:g} of pixel values 0..255"
        )
        if contract.resize == "area":
            takes += "; pictures of another size scaled by area average (bicubic to enlarge)"
    gives = "embedding of that one view, not normalised"
    if contract.flip and not graph.unit_output:
        gives += "; add that of the mirrored image and divide by the length before comparing by cosine"
    elif graph.unit_output:
        gives = "unit embedding" + (" of the image and its mirror image" if contract.flip else "")
    return f"images: aligned faces, {takes}. embedding: {gives}. Thresholds: metadata entry '{KEY}' (JSON)."


def _halve(model: Any) -> None:
    """Store every weight matrix and kernel as fp16, followed by a cast that runtimes fold when they load."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT and len(weight.dims) > 1:
            name = weight.name
            half = numpy_helper.from_array(numpy_helper.to_array(weight).astype("float16"), f"{name}.half")
            weight.CopyFrom(half)
            casts.append(helper.make_node("Cast", [f"{name}.half"], [name], to=TensorProto.FLOAT))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
