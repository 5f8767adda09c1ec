"""Low-rank adapters of a run: merge them into the network that they belong to."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from facescale.backbones.low_rank import merged
from facescale.guard.tensor_file import read_tensors
from facescale.inference.model import weights_fingerprint
from facescale.model_card import Card
from facescale.run import RunDir


def with_base(path: str | Path, card: Card, adapters: Mapping[str, Tensor]) -> tuple[Card, dict[str, Tensor]]:
    """Card and weights of the whole network that a file of adapters describes.

    The network is ``base.safetensors`` of the run that the file is a checkpoint of.

    Args:
        path: RUN/checkpoints/step_N/model.safetensors.
        card: of the file.
        adapters: what it holds.

    Raises:
        ValueError: the network is not there, or is another one.
    """
    base = RunDir(Path(path).absolute().parent / "../..").base.resolve()
    whole = "keep the run folder together, or take a whole file: facescale export RUN --out NAME.safetensors"
    if not base.is_file():
        raise ValueError(
            f"'{path}' holds low-rank adapters alone, and the network that they belong to, '{base}', is not "
            f"there; {whole}"
        )
    plain, _ = read_tensors(base, "the network of the adapters")
    if weights_fingerprint(plain, card.contract) != card.adapters:
        raise ValueError(f"'{base}' is not the network that the adapters '{path}' belong to; {whole}")
    try:
        state = merged(plain, adapters)
    except ValueError as error:
        raise ValueError(f"cannot use the weights '{path}': {error}; {whole}") from None
    of_adapters = weights_fingerprint(adapters, card.contract)
    fingerprint = adapted_fingerprint(card.adapters, of_adapters)
    return replace(card, adapters=None, fingerprint=fingerprint), state


def adapted_fingerprint(base: str, adapters: str) -> str:
    """Fingerprint of a network with adapters, made from both: merging may round differently elsewhere."""
    return hashlib.sha256(f"{base} {adapters}".encode()).hexdigest()[:32]
