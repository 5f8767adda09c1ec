"""Write a network as an ONNX file that says how to use it (needs the extra ``export``)."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from facescale.model_card import KEY, Card, Graph

_FILE_LIMIT = 2**31 - 2**20  # bytes that one protobuf file can hold, less room for the graph itself
_OPSETS = range(13, 21)


def write_onnx(
    graph: nn.Module,
    example: Tensor,
    free_axes: Mapping[int, str],
    card: Card,
    path: Path,
    opset: int = 17,
    half_weights: bool = False,
) -> str:
    """Write ``graph``, which maps a batch like ``example`` to embeddings, with the card in its metadata.

    Args:
        graph: the network.
        example: a batch of inputs.
        free_axes: axes of the input whose length stays open, with their names.
        card: goes into the metadata.
        path: the file.
        opset: version of the operator set.
        half_weights: store the weights as fp16.

    Returns:
        Which exporter wrote it, and the operator set.

    Raises:
        ValueError: the onnx package is missing, no such operator set, too many weights for one file.
    """
    try:
        import onnx
    except ImportError:
        raise ValueError(
            "ONNX export needs the onnx package; install: pip install 'facescale[export]'"
        ) from None
    if opset not in _OPSETS:
        raise ValueError(f"opset {opset} is not supported; choose {_OPSETS[0]} to {_OPSETS[-1]}")
    num_bytes = sum(weight.numel() * weight.element_size() for weight in graph.state_dict().values())
    if num_bytes > _FILE_LIMIT:
        raise ValueError(
            f"the network has {num_bytes / 2**30:.1f} GB of weights and an ONNX file holds 2 GB; "
            "export to .pt2 or .safetensors"
        )
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of exporter internals; the written file is compared
        try:
            # It takes 1 second where its successor takes 10, but torch will remove it.
            exporter = "tracing"
            torch.onnx.export(
                graph,
                (example,),
                path,
                dynamo=False,
                opset_version=opset,
                input_names=["images"],
                output_names=["embedding"],
                dynamic_axes={"images": dict(free_axes), "embedding": {0: "batch"}},
            )
        except Exception:
            exporter = "dynamo"
            torch.onnx.export(
                graph,
                (example,),
                path,
                dynamo=True,
                opset_version=max(opset, 18),  # the lowest that it writes
                input_names=["images"],
                output_names=["embedding"],
                dynamic_shapes=(dict(free_axes),),
                external_data=False,
                verbose=False,
            )
    model = onnx.load(path)
    if half_weights:
        _halve(model)
    onnx.helper.set_model_props(model, {KEY: card.to_json()})
    model.doc_string = describe(card)
    model.producer_name = KEY
    onnx.save(model, path)
    return f"ONNX ({exporter} exporter, opset {model.opset_import[0].version})"


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
