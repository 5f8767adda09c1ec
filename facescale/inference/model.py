"""A trained network as its users see it: uint8 faces in, unit embeddings out, from any weights file."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from facescale import backbones
from facescale.convert.foreign import convert
from facescale.files import replacing
from facescale.model_card import KEY, Card, Contract, Threshold
from facescale.registry import lookup
from facescale.run import RunDir

# B batch, H W height and width in pixels, d embedding size

Embeddings = npt.NDArray[np.float32]
_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Encoder(Protocol):
    """What computes: uint8 RGB images (B, S, S, 3) -> float32 embeddings (B, d).

    Attributes:
        embedding_size: d.
        unit_output: it gives the final unit embedding, mirrored view included, instead of one view's raw one.
    """

    embedding_size: int
    unit_output: bool

    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Embed one batch."""
        ...


class TorchEncoder:
    """A network on a device, used in evaluation mode without gradient, whatever mode it is in."""

    unit_output = False

    def __init__(self, module: nn.Module, contract: Contract, device: torch.device, precision: str) -> None:
        self.module = module
        self.embedding_size = int(module.embedding_size)  # type: ignore[arg-type]
        self._contract = contract
        self._device = device
        self._dtype = lookup("precision", _PRECISIONS, precision)

    @torch.no_grad()
    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Raw embedding of each image, on the device."""
        x = self._contract.normalise(images_BHW3.to(self._device))
        with (
            _evaluating(self.module),
            torch.autocast(self._device.type, self._dtype, enabled=self._dtype is not torch.float32),
        ):
            return self.module(x).float()  # type: ignore[no-any-return]


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every sub-module has its own mode again (some may be frozen)."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class Model:
    """Turns aligned faces into embeddings.

    Attributes:
        encoder: what computes; evaluators, which add the views themselves, take this.
        card: all that the weights file says of itself.
    """

    def __init__(self, encoder: Encoder, card: Card) -> None:
        self.encoder = encoder
        self.card = card

    @classmethod
    def of(cls, module: nn.Module, card: Card, device: str = "auto", precision: str = "fp32") -> "Model":
        """Wrap a network, which is moved to the device; its weights and mode stay as they are.

        Raises:
            ValueError: contract and network disagree on the image size, no such device or precision.
        """
        size = getattr(module, "input_size", card.contract.size)
        if size != card.contract.size:
            raise ValueError(
                f"the contract says {card.contract.size} pixels but the network takes {size}; "
                "one of them belongs to another model"
            )
        place = _device(device)
        return cls(TorchEncoder(module.to(place), card.contract, place, precision), card)

    @property
    def contract(self) -> Contract:
        """How images are prepared."""
        return self.card.contract

    @property
    def thresholds(self) -> Mapping[float, Threshold]:
        """Cosine thresholds by false-accept rate, each with the protocol that it was measured on."""
        return self.card.thresholds

    @property
    def info(self) -> Mapping[str, Any]:
        """Licence, data, step and whatever else was stored with the weights."""
        return self.card.info

    @property
    def embedding_size(self) -> int:
        """Width of the embedding."""
        return self.encoder.embedding_size

    @property
    def needs_flip(self) -> bool:
        """Whether the encoder must be shown the mirrored view too (an exported graph may do that itself)."""
        return self.contract.flip and not self.encoder.unit_output

    @property
    def module(self) -> nn.Module:
        """The network.

        Raises:
            ValueError: the model is an exported graph.
        """
        if not isinstance(self.encoder, TorchEncoder):
            raise ValueError("an exported graph has no PyTorch module; load the run or its model.safetensors")
        return self.encoder.module

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits; embeddings of equal ones can be compared. An export keeps those of its source."""
        return self.card.fingerprint or _fingerprint(self.module.state_dict(), self.contract)

    def embed(self, images_BHW3: npt.ArrayLike | Tensor, batch_size: int = 128) -> Embeddings:
        """Unit embeddings, float32 (B, d), of aligned faces, uint8 RGB (B, S, S, 3).

        With the contract's ``flip``, the raw embeddings of image and mirror image are added first.

        Raises:
            ValueError: images of another type, shape or size.
        """

        def unit(part: Tensor) -> Tensor:
            raw = self.encoder(part)
            if self.needs_flip:
                raw = raw + self.encoder(part.flip(2))
            return F.normalize(raw)

        return self._in_batches(unit, images_BHW3, batch_size)

    def embed_raw(self, images_BHW3: npt.ArrayLike | Tensor, batch_size: int = 128) -> Embeddings:
        """What the network gives for the images as they are: one view, not normalised, float32 (B, d).

        Raises:
            ValueError: images of another type, shape or size; a graph exported with ``unit_output``.
        """
        if self.encoder.unit_output:
            raise ValueError(
                "this graph gives unit embeddings, so raw ones cannot be had; export it without unit_output"
            )
        return self._in_batches(self.encoder, images_BHW3, batch_size)

    def _in_batches(self, encode: Any, images: npt.ArrayLike | Tensor, batch_size: int) -> Embeddings:
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size} must be at least 1")
        batch = self._checked(images)
        out = np.empty((len(batch), self.embedding_size), np.float32)
        for start in range(0, len(batch), batch_size):
            out[start : start + batch_size] = encode(batch[start : start + batch_size]).cpu().numpy()
        return out

    def _checked(self, images: npt.ArrayLike | Tensor) -> Tensor:
        array = images if isinstance(images, Tensor) else np.asarray(images)
        side = self.contract.size
        kind, shape = str(array.dtype).removeprefix("torch."), tuple(array.shape)
        if kind != "uint8":
            raise ValueError(
                f"images are {kind}, not uint8; give RGB pixels 0..255 as decoded, the model normalises them"
            )
        if len(shape) != 4 or shape[3] != 3:
            raise ValueError(
                f"images have shape {shape}, not (B, {side}, {side}, 3); give a batch, colour channels last"
            )
        if shape[1:3] != (side, side):
            raise ValueError(
                f"images are {shape[2]}x{shape[1]} pixels, the model takes {side}x{side}; align the faces"
                " to that size first"
            )
        if isinstance(array, Tensor):
            return array
        # Writable too: torch warns otherwise, and decoded pixels often are not.
        return torch.from_numpy(np.require(array, requirements=("C", "W")))


def save_model(
    path: str | Path,
    state_dict: Mapping[str, Tensor],
    backbone: Mapping[str, Any],
    contract: Contract,
    thresholds: Mapping[float, Threshold] | None = None,
    info: Mapping[str, Any] | None = None,
) -> None:
    """Write weights and what must travel with them as one safetensors file, atomically.

    Args:
        path: the file.
        state_dict: of the backbone.
        backbone: ``name``, ``embedding_size``, ``options`` as for `facescale.backbones.build`.
        contract: how the network wants its images.
        thresholds: by false-accept rate.
        info: free, JSON-able.
    """
    card = Card(contract, backbone, thresholds or {}, info or {})
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state_dict.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, {KEY: card.to_json()})


def load_model(path: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """Load a file that `save_model` wrote; one without a card is taken for another project's.

    Raises:
        ValueError: not such a file; its weights do not fit its backbone; no such device or precision.
    """
    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get(KEY)
            state = {name: file.get_tensor(name) for name in file.keys()} if text else {}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read the weights '{path}': {error}") from None
    if text is None:
        return load_foreign(path, device, precision)
    try:
        card = Card.from_json(text)
        spec = card.backbone or {}
        if set(spec) != {"name", "embedding_size", "options"}:
            raise ValueError("its card names no backbone")
        module = backbones.build(spec["name"], spec["embedding_size"], **spec["options"])
        module.load_state_dict(state)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"cannot use the weights '{path}': {error}") from None
    return Model.of(_for_use(module), card, device, precision)


def load_foreign(path: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """Load a checkpoint of another project, which `facescale.backbones.convert` knows by its keys.

    Nothing in the file is executed. ``info["origin"]`` names the project, which also decides the contract.

    Raises:
        ValueError: not a checkpoint, or of no network that is known; no such device or precision.
    """
    found = convert(path)
    spec = found.backbone
    module = backbones.build(spec["name"], spec["embedding_size"], **spec["options"])
    module.load_state_dict(found.state_dict)
    card = Card(found.contract, spec, info={"origin": found.origin})
    return Model.of(_for_use(module), card, device, precision)


def load(run_or_weights: str | Path, device: str = "auto", precision: str = "fp32") -> Model:
    """Load a model from whatever holds one.

    Args:
        run_or_weights: a run folder (its best checkpoint), a checkpoint folder, a ``model.safetensors``, an
            ``.onnx`` file, or a ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` file of another project.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        precision: "fp32", or "bf16" for bf16 autocast (2 to 4 times as fast where the device has it).

    Raises:
        ValueError: nothing there that can be loaded; no such device or precision.
    """
    path = Path(run_or_weights)
    if path.is_dir():
        inside = path / "model.safetensors"
        return load_model(inside if inside.is_file() else RunDir.open(path).model_path(), device, precision)
    if not path.is_file():
        raise ValueError(f"'{path}' does not exist; give a run folder or a weights file")
    if path.suffix == ".safetensors":
        return load_model(path, device, precision)
    if path.suffix == ".onnx":
        from facescale.inference.onnx_encoder import load_onnx

        return load_onnx(path, device, precision)
    if path.suffix in (".pth", ".pt", ".ckpt"):
        return load_foreign(path, device, precision)
    raise ValueError(
        f"'{path}' is no weights file that is known here; give a run folder, .safetensors, .onnx, .pth or .pt"
    )


def _for_use(module: nn.Module) -> nn.Module:
    """Evaluation mode, and the memory layout that convolutions like."""
    return module.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device '{name}' cannot be used ({reason}); try 'auto' or 'cpu'") from None
    return device


def _fingerprint(state: Mapping[str, Tensor], contract: Contract) -> str:
    """Hash of everything that an embedding depends on (so not of BatchNorm's integer step counters)."""
    digest = hashlib.sha256(repr(sorted(contract.to_dict().items())).encode())
    for name in sorted(state):
        tensor = state[name].detach()
        if tensor.is_floating_point():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]
