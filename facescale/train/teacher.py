"""The network that a run starts from, kept beside the one that is trained.

Two uses. Distillation: the new embedding of an image stays near the old one (squared distance of unit
embeddings), so that less is forgotten; for a network that is to be compared with an old gallery this is the
"L2" of backward-compatible training. Mixing: some embeddings of a batch come from the old network, so that
the class centres suit both (MixBCT, Liang et al., arXiv 2308.06948, without its removal of old outliers).
"""

from pathlib import Path

import torch
from torch import Tensor, nn

from facescale.config import Config
from facescale.inference.load import load
from facescale.model_card import Contract
from facescale.ops import autocast, unit

# V views, B batch of this process, D embedding size


class Teacher:
    """The old network; never trained, and no part of a checkpoint.

    Args:
        network: normalised images -> embeddings, on the device.
        distil: weight of the distance to its embeddings.
        mix: share of the embeddings that it gives to the head.
        device: where it computes.
        precision: a name of ``ops.PRECISIONS``.
    """

    def __init__(
        self, network: nn.Module, distil: float, mix: float, device: torch.device, precision: str
    ) -> None:
        self._network = network.eval().requires_grad_(False)
        self._distil, self._mix = distil, mix
        self._device, self._precision = device, precision

    @torch.no_grad()
    def embed(self, x_VBCHW: Tensor) -> Tensor:
        """Old embeddings (V, B, D) of normalised images."""
        with autocast(self._device, self._precision):
            old = self._network(x_VBCHW.flatten(0, 1))
        return old.float().view(*x_VBCHW.shape[:2], -1)  # type: ignore[no-any-return]

    def mixed(self, q_VBD: Tensor, old_VBD: Tensor, random_VB: Tensor) -> Tensor:
        """The embeddings, some of them replaced by old ones (those whose random number is below ``mix``)."""
        return torch.where((random_VB < self._mix)[..., None], old_VBD.to(q_VBD.dtype), q_VBD)

    def loss(self, q_VBD: Tensor, old_VBD: Tensor) -> Tensor:
        """Weighted mean squared distance of unit embeddings, new to old."""
        return self._distil * (unit(q_VBD) - unit(old_VBD)).square().sum(-1).mean()


def make_teacher(
    config: Config, contract: Contract, embedding_size: int, device: torch.device, precision: str
) -> Teacher | None:
    """The teacher that ``config.finetune`` asks for, or None.

    Raises:
        ValueError: none is named, or it takes other images or has another embedding size than the network.
    """
    wanted = config.finetune
    if not wanted.distil and not wanted.mix:
        return None
    path = wanted.teacher or config.train.init
    if not path:
        raise ValueError(
            "finetune.distil and finetune.mix need the old network; name it with finetune.teacher or "
            "train.init"
        )
    old = load(Path(path), device="cpu")
    ours = (contract.size, contract.colour, contract.mean, contract.std)
    theirs = (old.contract.size, old.contract.colour, old.contract.mean, old.contract.std)
    if theirs != ours or old.embedding_size != embedding_size:
        raise ValueError(
            f"the old network '{path}' takes {theirs[0]} px {theirs[1]} (v - {theirs[2]:g}) / {theirs[3]:g} "
            f"and gives {old.embedding_size} numbers, the new one {ours[0]} px {ours[1]} (v - {ours[2]:g}) / "
            f"{ours[3]:g} and {embedding_size}; distil and mix need the same"
        )
    network = old.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Teacher(network, wanted.distil, wanted.mix, device, precision)
