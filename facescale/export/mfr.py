"""A submission to InsightFace's MFR benchmark: the graph its server wants, checked as its helper does.

Rules: github.com/deepinsight/insightface, challenges/mfr/README.md and
recognition/arcface_torch/onnx_helper.py. The server runs ONNX Runtime 1.8 (operator set 14 at most), takes
one float32 input (*, 3, 112, 112) in RGB, (v - 127.5) / 127.5, forbids fp16 weights, and measures the time on
a V100; a CPU cannot decide that last check, so its time is only reported.
"""

import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from facescale.arrays import Pixels
from facescale.export.accuracy import Accuracy, protocols_of
from facescale.export.checked import MAX_DROP, Checks, write_checked
from facescale.export.graph import ExportGraph
from facescale.export.onnx_writer import OnnxFile
from facescale.export.parity import pick_faces
from facescale.export.write import prepared
from facescale.files import replacing
from facescale.inference.load import load
from facescale.inference.model import Model
from facescale.model_card import Contract, Graph

_SIDE = 112
_OPSET = 13
_MAX_BYTES = 1024 * 2**20
_MAX_DIMENSION = 512
_LEAST_NODES = 8
_V100_MS = 15  # of one image, on the server
_CALLS = 50


@dataclass(frozen=True)
class Submission:
    """A folder that the benchmark takes.

    Attributes:
        folder: holds ``model.onnx`` and ``submission.zip``, which is what is sent.
        checks: what was checked, with its value.
        milliseconds: of one image on this CPU; the server allows 15 on a V100.
        min_cosine: between the network's embedding of an image and the file's.
        accuracy: of network and file, on each protocol that was measured.
    """

    folder: str
    checks: Mapping[str, str]
    milliseconds: float
    min_cosine: float
    accuracy: tuple[Accuracy, ...]


def write_submission(
    model: Model | str | Path,
    folder: str | Path,
    *,
    images: str | Path | Pixels | None = None,
    check: Sequence[str] | None = None,
    max_drop: float = MAX_DROP,
) -> Submission:
    """Write a submission folder.

    Args:
        model: a model, or what `facescale.load` takes.
        folder: made if absent.
        images: faces for the comparison, as for `facescale.export.write.export`.
        check: protocols to measure accuracy on, likewise.
        max_drop: how much a protocol's figure may fall.

    Raises:
        ValueError: the benchmark does not take such a network: too large, too wide, another kind of input.
        ParityError: the embeddings of the file differ.
        AccuracyError: the file is less accurate.
    """
    folder = Path(folder)
    run = None
    if not isinstance(model, Model):
        run, model = model, load(model, device="cpu")
    network, card = prepared(model, Graph(), None, None)
    outside = Contract(size=_SIDE, flip=card.contract.flip)
    file = OnnxFile(ExportGraph(network.module, card, outside), _OPSET)
    checks = check_submission(file.model)
    faces, words = pick_faces(images, run, _SIDE)
    out = folder / "model.onnx"
    held_against = Checks(faces, words, protocols_of(check, run), max_drop, coarse=True)
    found = write_checked(file, out, network, replace(card, contract=outside), held_against)
    with replacing(folder / "submission.zip") as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.write(out, out.name)
    return Submission(str(folder), checks, _milliseconds(out), found.cosine, found.accuracy)


def check_submission(model: Any) -> dict[str, str]:
    """What the benchmark's helper would check of an ``onnx.ModelProto``, each with its value.

    Raises:
        ValueError: one of the checks fails.
    """
    from onnx import numpy_helper

    graph = model.graph
    shape = [dim.dim_value or dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim]
    width = graph.output[0].type.tensor_type.shape.dim[-1].dim_value
    num_bytes = model.ByteSize()
    small = [one.name for one in graph.initializer if numpy_helper.to_array(one).dtype.itemsize < 4]
    # Its helper takes names like these for mxnet's and then feeds pixels that are not normalised.
    mxnet = [n.name for n in graph.node[:8] if n.name.startswith(("Sub", "_minus", "Mul", "_mul"))]
    rules = {
        "input": (
            len(graph.input) == 1 and shape[1:] == [3, _SIDE, _SIDE] and isinstance(shape[0], str),
            f"{shape}",
            "one input (batch, 3, 112, 112)",
        ),
        "outputs": (len(graph.output) == 1, f"{len(graph.output)}", "exactly one"),
        "nodes": (len(graph.node) >= _LEAST_NODES, f"{len(graph.node)}", f"at least {_LEAST_NODES}"),
        "node names": (not mxnet, ", ".join(mxnet) or "ours", "none that begins with Sub or Mul"),
        "embedding": (0 < width <= _MAX_DIMENSION, f"{width}-d", f"at most {_MAX_DIMENSION}-d"),
        "size": (num_bytes <= _MAX_BYTES, f"{num_bytes / 2**20:.1f} MB", "at most 1024 MB"),
        "weights": (not small, f"16 bits or fewer in {small[:3]}" if small else "fp32", "fp32"),
        "opset": (model.opset_import[0].version <= 14, f"{model.opset_import[0].version}", "at most 14"),
    }
    for name, (good, value, allowed) in rules.items():
        if not good:
            raise ValueError(
                f"the MFR benchmark does not take this network: {name} is {value} and must be {allowed}; "
                "use another backbone or embedding size"
            )
    return {name: value for name, (_, value, _) in rules.items()}


def _milliseconds(path: Path) -> float:
    """Time of one image as the helper takes it: the sixth fastest of 50 calls."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    image = np.zeros((1, 3, _SIDE, _SIDE), np.float32)
    seconds = []
    for _ in range(_CALLS):
        start = time.perf_counter()
        session.run(None, {"images": image})
        seconds.append(time.perf_counter() - start)
    return sorted(seconds)[5] * 1e3
