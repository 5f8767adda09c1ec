"""Export a model for other programs, and check that the file produces the same embeddings."""

import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from facescale.arrays import Pixels
from facescale.export.accuracy import Accuracy, known_to, protocols_of
from facescale.export.checked import MAX_DROP, PRECISIONS, Checks, Form, write_checked
from facescale.export.graph import ExportGraph
from facescale.export.onnx_writer import OnnxFile
from facescale.export.parity import pick_faces
from facescale.export.program import CompiledPackage, Program
from facescale.export.quantise import calibration_faces, quantise
from facescale.files import require_writable
from facescale.inference.load import load
from facescale.inference.model import Model, weights_fingerprint
from facescale.inference.weights import load_model, save_model
from facescale.model_card import Card, Graph, Threshold
from facescale.prepare.align import SIZE, TEMPLATE
from facescale.registry import lookup

_COMPILED = ".aoti.pt2"


@dataclass(frozen=True)
class ExportReport:
    """The written file and its agreement with the network.

    Attributes:
        path: the file.
        writer: the exporter, with its opset if there is one.
        checked_on: the images of the parity check, in words.
        max_relative_difference: largest absolute difference of an element, over the largest element.
        min_cosine: between the network's embedding of an image and the file's.
        accuracy: of network and file, on each protocol that was measured.
        calibrated_on: the images that int8 ranges come from, in words; else empty.
        num_bytes: size of the file.
        fingerprint: the file's: the model's, except for int8, whose embeddings are others.
        seconds: time taken.
    """

    path: str
    writer: str
    checked_on: str
    max_relative_difference: float
    min_cosine: float
    accuracy: tuple[Accuracy, ...]
    calibrated_on: str
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
    precision: str = "fp32",
    half_weights: bool = False,
    opset: int = 17,
    calibrate_on: str | Path | Pixels | None = None,
    check: Sequence[str] | None = None,
    max_drop: float = MAX_DROP,
    thresholds: Mapping[float, Threshold] | None = None,
    info: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Write ``out`` in the format of its suffix.

    ``.onnx``, ``.pt2`` (torch.export), ``.aoti.pt2`` (compiled by AOTInductor for this kind of CPU) or
    ``.safetensors``. The batch size stays free. Contract, alignment template, accuracy, thresholds, info and
    fingerprint go into the file. Before it gets its final name it is read back and compared with the network:
    embeddings on batches of 1 and 5 images, accuracy on protocols.

    Args:
        model: a model, or what `facescale.load` takes.
        out: the file; by default ``export/model.onnx`` of the run.
        images: faces for the comparison: uint8 RGB (N, S, S, 3), or what `facescale.data.open_reader`
            takes; by default those of the run's evaluation set, or synthetic ones.
        uint8_input: the graph takes uint8 RGB (B, S, S, 3) and prepares it itself (where the contract has a
            resize rule, (B, H, W, 3) of any size); else it takes what the contract makes of that, float32
            (B, 3, S, S).
        unit_output: the graph returns the final unit embedding (with flip fusion where the contract says
            so), which the thresholds are for; else the raw embedding of one view.
        precision: "fp32"; "fp16" (the network computes in half precision); "int8" (ONNX, static, weights by
            channel; for convolutional networks).
        half_weights: ONNX: store the weights as fp16, half the file size; they are computed with as fp32.
        opset: ONNX: version of the operator set.
        calibrate_on: int8: faces that ranges are measured on; by default the run's training images.
        check: protocols to measure accuracy on before and after, ``NAME=PATH`` each as for evaluation; by
            default the run's evaluation sets; empty: none.
        max_drop: how much a protocol's figure may fall.
        thresholds: replace those of the model.
        info: added to that of the model, for example licence and data.

    Raises:
        ValueError: an unknown suffix, an option that the format does not have, a model that is an exported
            graph, images that do not fit, int8 without a protocol or calibration images, ONNX packages
            missing, weights beyond what an ONNX file holds.
        ParityError: the embeddings of the file differ.
        AccuracyError: the file is less accurate.
    """
    start = time.perf_counter()
    if out is None:
        out = _default_path(model)
        require_writable(out, "give --out FILE")
    out = Path(out)
    graph = Graph(uint8_input, unit_output, precision)
    _check_options(out, graph, half_weights)
    run = None
    if not isinstance(model, Model):
        run, model = model, load(model, device="cpu")
    protocols = protocols_of(check, run)
    if precision == "int8" and not protocols:
        raise ValueError("int8 costs accuracy and none was measured; name a protocol with --check NAME=PATH")
    network, card = prepared(model, graph, thresholds, info)
    form = _form(out, network.module, card, opset, half_weights)
    calibrated_on = ""
    if precision == "int8" and isinstance(form, OnnxFile):
        calibration, calibrated_on = calibration_faces(calibrate_on, run, card.contract.size)
        card = replace(card, fingerprint=quantise(form, card, calibration))
    faces, checked_on = pick_faces(images, run, card.contract.size)
    known = known_to(run, network)
    checks = Checks(faces, checked_on, protocols, max_drop, half_weights, thresholds, known)
    found = write_checked(form, out, network, card, checks)
    return ExportReport(
        *(str(out), form.writer, checked_on, found.difference, found.cosine, found.accuracy, calibrated_on),
        num_bytes=found.num_bytes,
        fingerprint=card.fingerprint or "",
        seconds=time.perf_counter() - start,
    )


def prepared(
    model: Model,
    graph: Graph,
    thresholds: Mapping[float, Threshold] | None,
    info: Mapping[str, Any] | None,
) -> tuple[Model, Card]:
    """A copy of the network on the CPU, in fp32 and evaluation mode, and the card of its export."""
    # So that the comparison measures the export and not TF32 or the caller's autocast.
    module = copy.deepcopy(model.module).to("cpu", torch.float32).eval()
    card = replace(
        model.card,
        thresholds=model.thresholds if thresholds is None else thresholds,
        info={**model.info, "alignment": _ALIGNMENT, **(info or {})},
    )
    return Model.of(module, card, "cpu"), replace(card, fingerprint=model.fingerprint, graph=graph)


_ALIGNMENT = {"template_pixels": SIZE, "landmarks": TEMPLATE.tolist()}


def _form(out: Path, module: nn.Module, card: Card, opset: int, half_weights: bool) -> Form:
    if out.suffix == ".safetensors":
        if card.backbone is None:
            raise ValueError(
                f"this network was not built by name, so '{out}' could not be loaded; export to .onnx or .pt2"
            )
        return WeightsFile(module)
    graph = card.graph or Graph()
    network = copy.deepcopy(module) if graph.precision == "fp16" else module
    wrapped = ExportGraph(network, card, half=graph.precision == "fp16")
    if out.suffix == ".onnx":
        return OnnxFile(wrapped, opset, half_weights)
    return CompiledPackage(wrapped) if out.name.endswith(_COMPILED) else Program(wrapped)


class WeightsFile:
    """The weights of a network with their card."""

    writer = "safetensors"

    def __init__(self, module: nn.Module) -> None:
        self._state = module.state_dict()

    def save(self, path: Path, card: Card) -> None:
        """Write the file."""
        own = weights_fingerprint(self._state, card.contract)
        other = card.fingerprint if card.fingerprint != own else None  # of adapters that are merged here
        spec = (card.backbone or {}, card.contract, card.thresholds, card.info)
        save_model(path, self._state, *spec, fingerprint=other)

    def open(self, path: Path) -> Model:
        """The file as a model."""
        return load_model(path, "cpu")


def _default_path(model: Model | str | Path) -> Path:
    if isinstance(model, Model):
        raise ValueError("a model in memory has no run folder; name the file to write")
    if not Path(model).exists():
        raise ValueError(f"'{model}' does not exist; name a run folder or a weights file")
    if not Path(model).is_dir():
        raise ValueError(f"'{model}' is not a run folder; name the file to write with --out FILE.onnx")
    return Path(model) / "export" / "model.onnx"


def _check_options(out: Path, graph: Graph, half_weights: bool) -> None:
    if out.suffix not in (".onnx", ".pt2", ".safetensors"):
        raise ValueError(f"cannot export to '{out}'; the name must end in .onnx, .pt2 or .safetensors")
    lookup("precision", PRECISIONS, graph.precision)
    if half_weights and out.suffix != ".onnx":
        raise ValueError(f"half_weights is for .onnx files, not for '{out}'; remove it")
    if half_weights and graph.precision != "fp32":
        raise ValueError(f"half_weights does not go with precision '{graph.precision}'; remove one of them")
    if graph.precision == "int8" and out.suffix != ".onnx":
        raise ValueError(f"int8 is for .onnx files, not for '{out}'; use .onnx or another precision")
    if out.suffix == ".safetensors" and graph != Graph():
        raise ValueError(
            f"'{out}' contains weights but no graph; uint8_input and unit_output are for .onnx and .pt2, "
            "and so is precision"
        )
