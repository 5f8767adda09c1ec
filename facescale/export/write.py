"""Export a model for other programs, and check that the file produces the same embeddings."""

import copy
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from facescale.arrays import Pixels
from facescale.export.onnx_writer import write_onnx
from facescale.export.parity import ParityError, compare, pick_faces
from facescale.export.program import ExportGraph, ProgramEncoder, write_program
from facescale.files import replacing, require_writable
from facescale.inference.load import load, load_onnx
from facescale.inference.model import Model
from facescale.inference.weights import load_model, save_model
from facescale.model_card import Graph, Threshold

_TOLERANCE = (1e-4, 0.99999)  # relative difference, cosine; observed 4e-6 where an export is right
_HALF_TOLERANCE = (2e-2, 0.9995)


@dataclass(frozen=True)
class ExportReport:
    """The written file and its agreement with the network.

    Attributes:
        path: the file.
        writer: the exporter, with its opset if there is one.
        checked_on: the images of the parity check, in words.
        max_relative_difference: largest absolute difference of an element, over the largest element.
        min_cosine: between the network's embedding of an image and the file's.
        num_bytes: size of the file.
        fingerprint: the model's.
        seconds: time taken.
    """

    path: str
    writer: str
    checked_on: str
    max_relative_difference: float
    min_cosine: float
    num_bytes: int
    fingerprint: str
    seconds: float


def export(
    model: Model | str | Path,
    out: str | Path | None = None,
    *,
    images: str | Path | Pixels | None = None,
    uint8_input: bool = False,
    unit_output: bool = False,
    half_weights: bool = False,
    opset: int = 17,
    thresholds: Mapping[float, Threshold] | None = None,
    info: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Write ``out`` in the format of its suffix: ``.onnx``, ``.pt2`` (torch.export) or ``.safetensors``.

    The batch size stays free. Contract, thresholds, info and fingerprint go into the file. It is read back
    and compared with the network, on batches of 1 and 5 images, before it gets its final name.

    Args:
        model: a model, or what `facescale.load` takes.
        out: the file; by default ``export/model.onnx`` of the run.
        images: faces for the comparison: uint8 RGB (N, S, S, 3), or what `facescale.data.open_reader`
            takes; by default those of the run's evaluation set, or synthetic ones.
        uint8_input: the graph takes uint8 RGB (B, S, S, 3) and prepares it itself; else it takes what the
            contract makes of that, float32 (B, 3, S, S).
        unit_output: the graph returns the final unit embedding (with flip fusion where the contract says
            so), which the thresholds are for; else the raw embedding of one view.
        half_weights: ONNX: store the weights as fp16, half the file size; they are computed with as fp32.
        opset: ONNX: version of the operator set.
        thresholds: replace those of the model.
        info: added to that of the model, for example licence and data.

    Raises:
        ValueError: an unknown suffix, an option that the format does not have, a model that is an exported
            graph, images that do not fit, ONNX packages missing, weights beyond what an ONNX file holds.
        ParityError: the embeddings of the file differ.
    """
    start = time.perf_counter()
    if out is None:
        out = _default_path(model)
        require_writable(out, "give --out FILE")
    out = Path(out)
    graph = Graph(uint8_input, unit_output)
    _check_options(out, graph, half_weights)
    run = None
    if not isinstance(model, Model):
        run, model = model, load(model, device="cpu")
    if model.card.backbone is None and out.suffix == ".safetensors":
        raise ValueError(
            f"this network was not built by name, so '{out}' could not be loaded; export to .onnx or .pt2"
        )
    card = replace(
        model.card,
        thresholds=model.thresholds if thresholds is None else thresholds,
        info={**model.info, **(info or {})},
    )
    # On the CPU in fp32, so that the comparison measures the export and not TF32 or the caller's autocast.
    module = copy.deepcopy(model.module).to("cpu", torch.float32).eval()
    network = Model.of(module, card, "cpu")
    faces, checked_on = pick_faces(images, run, card.contract.size)
    card = replace(card, fingerprint=model.fingerprint, graph=graph)
    with replacing(out) as temporary:
        if out.suffix == ".onnx":
            wrapped = ExportGraph(module, card)
            axes = wrapped.free_axes
            writer = write_onnx(wrapped, wrapped.example(), axes, card, temporary, opset, half_weights)
            written = load_onnx(temporary, "cpu")
        elif out.suffix == ".pt2":
            wrapped = ExportGraph(module, card)
            writer = write_program(wrapped, wrapped.free_axes, card, temporary)
            encoder = ProgramEncoder(temporary, network.embedding_size)
            written = Model(encoder, encoder.card)
        else:
            writer = "safetensors"
            save_model(
                temporary, module.state_dict(), card.backbone or {}, card.contract, card.thresholds, card.info
            )
            written = load_model(temporary, "cpu")
        difference, cosine = compare(network, written, faces)
        allowed_difference, allowed_cosine = _HALF_TOLERANCE if half_weights else _TOLERANCE
        if not (difference <= allowed_difference and cosine >= allowed_cosine):  # so that NaN fails too
            raise ParityError(
                f"the embeddings of the {writer} file differ from those of the network: relative difference"
                f" {difference:.2g} (allowed {allowed_difference:g}), cosine down to {cosine:.6f} (allowed"
                f" {allowed_cosine:g}), on {checked_on}; '{out}' was not written; try another opset or format"
            )
        num_bytes = temporary.stat().st_size
    seconds = time.perf_counter() - start
    return ExportReport(
        str(out), writer, checked_on, difference, cosine, num_bytes, model.fingerprint, seconds
    )


def _default_path(model: Model | str | Path) -> Path:
    if isinstance(model, Model):
        raise ValueError("a model in memory has no run folder; name the file to write")
    if not Path(model).is_dir():
        raise ValueError(f"'{model}' is not a run folder; name the file to write with --out FILE.onnx")
    return Path(model) / "export" / "model.onnx"


def _check_options(out: Path, graph: Graph, half_weights: bool) -> None:
    if out.suffix not in (".onnx", ".pt2", ".safetensors"):
        raise ValueError(f"cannot export to '{out}'; the name must end in .onnx, .pt2 or .safetensors")
    if half_weights and out.suffix != ".onnx":
        raise ValueError(f"half_weights is for .onnx files, not for '{out}'; remove it")
    if out.suffix == ".safetensors" and graph != Graph():
        raise ValueError(
            f"'{out}' contains weights but no graph; uint8_input and unit_output are for .onnx and .pt2"
        )
