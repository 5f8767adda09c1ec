"""A trained network for users: uint8 faces in, unit embeddings out, from any weights file."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from facescale.arrays import Pixels
from facescale.data.loading.decode import decode
from facescale.data.readers.base import BadRecordError
from facescale.data.readers.folder import read_file
from facescale.distributed import pick_device
from facescale.inference.batches import as_batch
from facescale.inference.torch_encoder import TorchEncoder
from facescale.model_card import Card, Contract, Threshold
from facescale.ops import embed_views, fuse_views, unit

# B batch, H W height and width in pixels, d embedding size

Embeddings = npt.NDArray[np.float32]


class Encoder(Protocol):
    """Computes embeddings: uint8 RGB images (B, S, S, 3) -> float32 embeddings (B, d).

    Attributes:
        embedding_size: d.
        unit_output: returns the final unit embedding, flip fusion included, instead of one view's raw one.
    """

    embedding_size: int
    unit_output: bool

    def __call__(self, images_BHW3: Tensor) -> Tensor:
        """Embed one batch."""
        ...


class Model:
    """Turns aligned faces into embeddings.

    Attributes:
        encoder: computes the embeddings; evaluators, which do flip fusion themselves, use it directly.
        card: the metadata of the weights file.
    """

    def __init__(self, encoder: Encoder, card: Card) -> None:
        self.encoder = encoder
        self.card = card

    @classmethod
    def of(cls, module: nn.Module, card: Card, device: str = "auto", precision: str = "fp32") -> "Model":
        """Wrap a network and move it to the device; its weights and mode do not change.

        Raises:
            ValueError: contract and network disagree on the image size; an unknown device or precision.
        """
        size = getattr(module, "input_size", card.contract.size)
        if size != card.contract.size:
            raise ValueError(
                f"the contract says {card.contract.size} pixels but the network takes {size}; "
                "one of them belongs to another model"
            )
        place = pick_device(device)
        return cls(TorchEncoder(module.to(place), card.contract, place, precision), card)

    @property
    def contract(self) -> Contract:
        """How images are prepared."""
        return self.card.contract

    @property
    def thresholds(self) -> Mapping[float, Threshold]:
        """Cosine thresholds by false-accept rate, each with the protocol that it was measured on."""
        return self.card.thresholds

    def threshold(self, far: float) -> Threshold:
        """The cosine threshold at a false-accept rate.

        Raises:
            ValueError: none was measured at that rate; the message names the rates that were.
        """
        for known, threshold in self.thresholds.items():
            if math.isclose(known, far, rel_tol=1e-6):
                return threshold
        known_rates = ", ".join(f"{rate:g}" for rate in sorted(self.thresholds))
        have = f"it has thresholds at {known_rates}" if known_rates else "it has no thresholds"
        other = f"use the nearest, --far {self._nearest_rate(far):g}, or " if known_rates else ""
        raise ValueError(
            f"this model has no threshold at a false-accept rate of {far:g}: {have}; {other}measure one on "
            "enough pairs: facescale evaluate MODEL --on NAME=all_pairs:DATA --adopt"
        )

    def _nearest_rate(self, far: float) -> float:
        """Of the rates that were measured, the one whose ratio to ``far`` is nearest to 1."""
        return min(self.thresholds, key=lambda rate: abs(math.log(rate / far)) if far > 0 else rate)

    def compare(self, first_HW3: npt.ArrayLike, second_HW3: npt.ArrayLike) -> float:
        """Cosine of two aligned faces, uint8 RGB (S, S, 3).

        Raises:
            ValueError: as ``embed``.
        """
        first, second = self.embed(np.stack([np.asarray(first_HW3), np.asarray(second_HW3)]))
        return float(first @ second)

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
        """Whether the mirrored view must be embedded too (an exported graph may do that itself)."""
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
        return self.card.fingerprint or weights_fingerprint(self.module.state_dict(), self.contract)

    def weights_digest(self) -> str:
        """32 hex digits of the weights in memory and the contract, whatever the file says of itself.

        Raises:
            ValueError: the model is an exported graph.
        """
        return weights_fingerprint(self.module.state_dict(), self.contract)

    def cache_key(self) -> dict[str, str]:
        """Everything about the network that an embedding depends on, as texts."""
        if not isinstance(self.encoder, TorchEncoder):
            return {"model": self.fingerprint}
        network = json.dumps(self.card.backbone, sort_keys=True, default=str)  # options may change the input
        return {"weights": self.weights_digest(), "computed": self.encoder.setting, "network": network}

    def embed(self, images_BHW3: npt.ArrayLike | Tensor, batch_size: int = 128) -> Embeddings:
        """Unit embeddings, float32 (B, d), of aligned faces, uint8 RGB (B, S, S, 3).

        With the contract's ``flip``, the raw embeddings of image and mirror image are added first. With its
        ``resize``, images of another size are scaled as in training; a list may mix sizes.

        Raises:
            ValueError: images of another type, shape or size.
        """

        def embedded(part: Tensor) -> Tensor:
            return unit(fuse_views(embed_views(self.encoder, part, self.needs_flip, axis=2)))

        return self._in_batches(embedded, images_BHW3, batch_size)

    def embed_files(self, paths: Sequence[str | Path], batch_size: int = 128) -> Embeddings:
        """Unit embeddings, float32 (N, d), of files with aligned faces.

        Raises:
            ValueError: a file cannot be read, with its name; an image of another size, as ``embed``.
        """
        out = np.empty((len(paths), self.embedding_size), np.float32)
        for start in range(0, len(paths), batch_size):
            images = [_read(path) for path in paths[start : start + batch_size]]
            out[start : start + len(images)] = np.concatenate(
                [self.embed(np.stack(images))]
                if len({image.shape for image in images}) == 1
                else [self.embed(image[None]) for image in images]
            )
        return out

    def embed_raw(self, images_BHW3: npt.ArrayLike | Tensor, batch_size: int = 128) -> Embeddings:
        """The raw output of the network for the images: one view, not normalised, float32 (B, d).

        Raises:
            ValueError: images of another type, shape or size; a graph exported with ``unit_output``.
        """
        if self.encoder.unit_output:
            raise ValueError(
                "this graph returns unit embeddings, so there are no raw ones; export it without unit_output"
            )
        return self._in_batches(self.encoder, images_BHW3, batch_size)

    def _in_batches(self, encode: Any, images: npt.ArrayLike | Tensor, batch_size: int) -> Embeddings:
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size} must be at least 1")
        batch = as_batch(images, self.contract)
        out = np.empty((len(batch), self.embedding_size), np.float32)
        for start in range(0, len(batch), batch_size):
            out[start : start + batch_size] = encode(batch[start : start + batch_size]).cpu().numpy()
        return out


def weights_fingerprint(state: Mapping[str, Tensor], contract: Contract) -> str:
    """Hash of everything that an embedding depends on (so not of BatchNorm's integer step counters)."""
    rules = contract.to_dict()
    rules.pop("resize", None)  # tells which pixels come in; the same pixels have the same embedding
    digest = hashlib.sha256(repr(sorted(rules.items())).encode())
    for name in sorted(state):
        tensor = state[name].detach()
        if tensor.is_floating_point():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:32]


def _read(path: str | Path) -> Pixels:
    try:
        return decode(read_file(path))
    except BadRecordError as error:
        raise ValueError(f"'{path}' cannot be embedded: {error}") from None
