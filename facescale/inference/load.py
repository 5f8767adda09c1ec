"""Load a model from a run folder or a weights file of any supported format."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from facescale.checksums import model_damage
from facescale.guard.onnx_graph import check_onnx
from facescale.guard.reading import check_file, reading, reason
from facescale.inference.model import Model
from facescale.inference.onnx_contract import guess_contract, stated_contract
from facescale.inference.onnx_encoder import OnnxEncoder
from facescale.inference.weights import load_foreign, load_model
from facescale.machine.onnx_session import session_options
from facescale.model_card import KEY, Card, Contract, Graph
from facescale.run import RunDir

_HAS_ITS_OWN = "'{}' states its contract: {}; a contract can be given for files of other projects only"


def load(
    run_or_weights: str | Path, device: str = "auto", precision: str = "fp32", contract: str | None = None
) -> Model:
    """Load a model.

    Args:
        run_or_weights: a run folder (its best checkpoint), a checkpoint folder, a ``model.safetensors``, an
            ``.onnx`` file, or a ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` file of another project.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        precision: "fp32", or "bf16" or "fp16" for autocast (2 to 4 times as fast where the device has it).
        contract: how a file of another project wants its images, such as ``colour=BGR,mean=0,std=1,flip=no``;
            what is left out stays as it was assumed.

    Raises:
        ValueError: the path holds no supported model; an unknown device or precision; a contract for a file
            that states its own.
    """
    path = Path(run_or_weights)
    if path.suffix == ".onnx" and path.is_file():
        return load_onnx(path, device, precision, contract)
    model = _load(path, device, precision)
    if contract is None:
        return model
    if "origin" not in model.info:
        raise ValueError(_HAS_ITS_OWN.format(path, model.contract.words()))
    stated = stated_contract(contract, model.contract)
    card = replace(model.card, contract=stated, info={**model.info, "contract": "stated by the user"})
    return Model.of(model.module, card, device, precision)


def contract_note(model: Model) -> str | None:
    """How images are prepared for a file of another project, and how that is known; None for our own."""
    reason = model.info.get("contract")
    if reason is None:
        return model.info.get("assumed")  # of a network under other names
    return f"contract: {model.contract.words()} ({reason}); state another one with --contract"


def weights_of(path: Path) -> Path:
    """The weights file that a path means: that of a run's best whole checkpoint, of a checkpoint, or itself.

    Raises:
        ValueError: a folder that is no run, or one without a whole checkpoint.
    """
    if not path.is_dir():
        return path
    if (path / "config.toml").exists() or not (path / "model.safetensors").is_file():
        return RunDir.open(path).model_path()
    return path / "model.safetensors"


def _load(path: Path, device: str, precision: str) -> Model:
    path = weights_of(path)
    if not path.exists():
        raise ValueError(f"'{path}' does not exist; name a run folder or a weights file")
    check_file(path, "the weights")
    if path.suffix == ".safetensors":
        if damage := model_damage(path):
            raise ValueError(f"the weights '{path}' are damaged ({damage}); use another checkpoint")
        return load_model(path, device, precision)
    if path.suffix in (".pth", ".pt", ".ckpt"):
        return load_foreign(path, device, precision)
    raise ValueError(
        f"'{path}' is not a supported weights file; give a run folder, .safetensors, .onnx, .pth or .pt"
    )


def load_onnx(
    path: str | Path, device: str = "auto", precision: str = "fp32", contract: str | None = None
) -> Model:
    """Load an ONNX file.

    The card of a facescale export is used. A file of another project is assumed to take RGB,
    (v - 127.5) / 127.5, at the image size of its input, unless its first nodes normalise pixels themselves or
    ``contract`` says otherwise (see `load`); ``info["contract"]`` records what was assumed and why.

    Raises:
        ValueError: not an ONNX file, or one that does not map images to embeddings; ONNX Runtime is not
            installed or cannot use the device; a precision other than fp32; a contract for a file that
            has one.
    """
    if precision != "fp32":
        raise ValueError(
            f"precision '{precision}' does not apply to ONNX files, which run as exported; use 'fp32'"
        )
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(
            "an .onnx file needs ONNX Runtime; install it with: pip install 'facescale[export]'"
        ) from None
    check_onnx(path)
    providers = _providers(device, onnxruntime.get_available_providers())
    try:
        session = onnxruntime.InferenceSession(str(path), session_options(torch.get_num_threads()), providers)
    except Exception as error:  # its exceptions have no common base class
        raise ValueError(
            f"cannot read '{path}' as ONNX: {reason(error)}; get a complete copy of it"
        ) from None
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        card = _assumed_card(path, session, contract)
    else:
        try:
            card = Card.from_json(text)
        except ValueError as error:
            raise ValueError(f"cannot use '{path}': {error}") from None
        if contract is not None:
            raise ValueError(_HAS_ITS_OWN.format(path, card.contract.words()))
    try:
        encoder = OnnxEncoder(session, card.contract, card.graph or Graph())
    except ValueError as error:
        raise ValueError(f"cannot use '{path}': {error}") from None
    return Model(encoder, card)


def _assumed_card(path: str | Path, session: Any, stated: str | None) -> Card:
    """Card of a file without metadata."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or not outputs:
        raise ValueError(
            f"'{path}' has {len(inputs)} inputs and {len(outputs)} outputs; a face model has one input"
        )
    kind, shape = inputs[0].type, inputs[0].shape
    fits = kind == "tensor(float)" and len(shape) == 4 and shape[1] == 3
    fits = fits and shape[2] == shape[3] and isinstance(shape[2], int)
    if not fits or len(outputs[0].shape) != 2 or not isinstance(outputs[0].shape[1], int):
        raise ValueError(
            f"'{path}' maps {kind} {shape} to {outputs[0].shape}; a face model must map float (B, 3, S, S) to"
            " (B, d) with S and d fixed"
        )
    with reading(path, "the ONNX file"):
        guess = guess_contract(path, shape[2])
    contract, reason = guess.contract, guess.reason
    if stated is not None:
        contract, reason = stated_contract(stated, contract), "stated by the user"
    digest = hashlib.sha256(Path(path).read_bytes())
    if contract != Contract(size=shape[2]):
        digest.update(contract.words().encode())  # prepared in another way, embeddings do not compare
    return Card(contract, info={"contract": reason}, fingerprint=digest.hexdigest()[:32])


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
