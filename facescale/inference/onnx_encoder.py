"""Run an ONNX file, ours or another project's, as a model (needs the extra ``export``)."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from facescale.inference.model import Model
from facescale.model_card import KEY, Card, Contract, Graph


class OnnxEncoder:
    """An ONNX Runtime session as an encoder."""

    def __init__(self, session: Any, contract: Contract, graph: Graph) -> None:
        self.unit_output = graph.unit_output
        self.embedding_size = int(session.get_outputs()[0].shape[-1])
        self._session = session
        self._contract = contract
        self._uint8_input = graph.uint8_input
        self._input = session.get_inputs()[0].name
        batch = session.get_inputs()[0].shape[0]
        self._fixed_batch = (
            batch if isinstance(batch, int) else None
        )  # many files of others take one image only

    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Embed a batch; the result is on the CPU."""
        x = images_BHW3 if self._uint8_input else self._contract.normalise(images_BHW3)
        x_B = x.cpu().contiguous().numpy()
        size = self._fixed_batch or len(x_B)
        padded = np.concatenate([x_B, np.repeat(x_B[-1:], -len(x_B) % size, axis=0)])
        parts = [
            self._session.run(None, {self._input: padded[start : start + size]})[0]
            for start in range(0, len(padded), size)
        ]
        return torch.from_numpy(np.concatenate(parts)[: len(x_B)]).float()


def load_onnx(path: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """Load an ONNX file.

    What an export of ours says of itself is used. A file of another project is taken to want RGB,
    (v - 127.5) / 127.5, and the image size of its input; ``info["contract"]`` then says so.

    Raises:
        ValueError: not an ONNX file, or one that does not map images to embeddings; ONNX Runtime is not
            installed or cannot use the device; a precision other than the file's own.
    """
    if precision != "fp32":
        raise ValueError(
            f"precision '{precision}' is not for ONNX files, which compute as exported; use 'fp32'"
        )
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(
            "an .onnx file needs ONNX Runtime; install it with: pip install 'facescale[export]'"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers)
    except Exception as error:  # its exceptions share no base class of their own
        raise ValueError(f"cannot read '{path}' as ONNX: {str(error).splitlines()[0]}") from None
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        card = _assumed_card(path, session)
    else:
        try:
            card = Card.from_json(text)
        except ValueError as error:
            raise ValueError(f"cannot use '{path}': {error}") from None
    graph = card.graph or Graph()
    return Model(OnnxEncoder(session, card.contract, graph), card)


def _assumed_card(path: str | Path, session: Any) -> Card:
    """Card of a file that says nothing of itself."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    kind, shape = inputs[0].type, inputs[0].shape
    fits = kind == "tensor(float)" and len(shape) == 4 and shape[1] == 3
    fits = fits and shape[2] == shape[3] and isinstance(shape[2], int)
    if len(inputs) != 1 or not fits or len(outputs[0].shape) != 2 or not isinstance(outputs[0].shape[1], int):
        raise ValueError(
            f"'{path}' maps {kind} {shape} to {outputs[0].shape}; a face model must map float (B, 3, S, S) to"
            " (B, d) with S and d fixed"
        )
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()[:32]
    return Card(Contract(size=shape[2]), info={"contract": "assumed, the file has none"}, fingerprint=digest)


def _providers(device: str, available: list[str]) -> list[Any]:
    kind, _, index = device.partition(":")
    has_cuda = "CUDAExecutionProvider" in available
    if kind == "cuda" and not has_cuda:
        raise ValueError(
            f"device '{device}' cannot be used by this ONNX Runtime; use 'cpu', or install onnxruntime-gpu"
        )
    if kind not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device '{device}' cannot be used for an ONNX file; use 'auto', 'cpu' or 'cuda'")
    gpu = [("CUDAExecutionProvider", {"device_id": int(index or 0)})] if has_cuda and kind != "cpu" else []
    return [*gpu, "CPUExecutionProvider"]
