"""Static int8: ranges of activations measured on faces, weights by channel (needs the extra ``export``)."""

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from facescale.arrays import Pixels
from facescale.config import load_config
from facescale.data import open_reader
from facescale.data.images import ReaderImages
from facescale.data.loading.decode import decode_into
from facescale.export.onnx_writer import OnnxFile
from facescale.model_card import Card, Graph
from facescale.run import RunDir

NUM_FACES = 256
_BATCH = 16
# What is worth 8 bits. PRelu, norms, softmax and additions stay fp32: their error is not averaged out.
_OPERATORS = ("Conv", "Gemm", "MatMul")


def calibration_faces(
    images: str | Path | Pixels | None, run: str | Path | None, size: int, count: int = NUM_FACES
) -> tuple[Pixels, str]:
    """Faces to measure ranges on, uint8 RGB (N, size, size, 3), and what they are in words.

    Args:
        images: pixels, or what `facescale.data.open_reader` takes; None: the run's training images.
        run: the run folder.
        size: side in pixels; images that are read are scaled to it.
        count: how many at most, evenly over the data.

    Raises:
        ValueError: no images and no run to take them from, or images that cannot be read.
    """
    if isinstance(images, np.ndarray):
        if len(images) == 0:
            raise ValueError("no images to calibrate int8 on; pass at least one, better some hundreds")
        return images[:count], f"{min(len(images), count)} user images"
    if images is not None:
        reader, words = open_reader(str(images)), f"images of {images}"
    else:
        config = RunDir(run).config if run else None
        if config is None or not config.is_file():
            raise ValueError(
                "int8 needs faces to measure ranges on and this model is not a run with training data; name "
                "a data set with --calibrate-on DATA (calibrate_on=...)"
            )
        reader, words = open_reader(load_config(config).data.train), "training images of the run"
    source = ReaderImages(reader)
    picked = np.unique(np.linspace(0, len(source) - 1, count).astype(int))
    faces = np.empty((len(picked), size, size, 3), np.uint8)
    for face, index in zip(faces, picked, strict=True):
        decode_into(face, source[int(index)], resize=True)
    return faces, f"{len(picked)} {words}"


def quantise(file: OnnxFile, card: Card, faces_NHW3: Pixels) -> str:
    """Make the model of ``file`` an int8 one: quantised and dequantised tensors around its products.

    Args:
        file: changed in place.
        card: of the exported graph, which says what its input is.
        faces_NHW3: of the size that the graph takes.

    Returns:
        Fingerprint of the quantised network: its embeddings are not those of the fp32 one.
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "int8.onnx"
        quant_pre_process(file.model, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            quantised,
            _reader(faces_NHW3, card),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            nodes_to_exclude=_around_the_network(file.model),
        )
        file.model = onnx.load(quantised)
    file.writer = f"{file.writer}, static int8"
    weights = b"".join(one.SerializeToString() for one in file.model.graph.initializer)
    return hashlib.sha256(f"{card.fingerprint}".encode() + weights).hexdigest()[:32]


def _around_the_network(model: Any) -> list[str]:
    """Names of the nodes that prepare pixels or scale the embedding, which stay as they are."""
    inside = [node.name.startswith("/network/") for node in model.graph.node]
    if not any(inside):  # the dynamo exporter names nodes otherwise
        return []
    return [node.name for node, within in zip(model.graph.node, inside, strict=True) if not within]


def _reader(faces_NHW3: Pixels, card: Card) -> Any:
    """The faces as the input of the graph, in the form that ONNX Runtime asks for."""
    from onnxruntime.quantization import CalibrationDataReader

    class Faces(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = _batches(faces_NHW3, card)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    return Faces()


def _batches(faces_NHW3: Pixels, card: Card) -> Iterator[dict[str, Any]]:
    uint8 = (card.graph or Graph()).uint8_input
    for start in range(0, len(faces_NHW3), _BATCH):
        part = torch.from_numpy(faces_NHW3[start : start + _BATCH])
        yield {"images": (part if uint8 else card.contract.normalise(part).contiguous()).numpy()}
