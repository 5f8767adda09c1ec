"""Does a network expect RGB or BGR? Embed both, and see which order separates people better.

Shapes: N images, D embedding width.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from facescale.data.loading.decode import decode_into
from facescale.data.readers.base import Reader
from facescale.model_card import Contract

_IDENTITIES, _PER_IDENTITY, _BATCH = 64, 4, 32
_CLEAR = 0.1  # relative difference below which the test is inconclusive


@dataclass(frozen=True)
class SwapResult:
    """How far genuine pairs lie from impostor pairs, in standard deviations of their cosines (d').

    Attributes:
        stated: with the contract's colour order.
        swapped: with the other one.
        num_images: the images that were compared, each with each.
    """

    stated: float
    swapped: float
    num_images: int

    @property
    def verdict(self) -> str:
        """A sentence: whether the contract's order is the better one, if the difference is clear."""
        low, high = sorted((self.stated, self.swapped))
        if high - low < _CLEAR * abs(high):
            outcome = "these images do not show which colour order is right"
        elif self.stated > self.swapped:
            outcome = "the colour order is right"
        else:
            outcome = "the colour order is WRONG, name another origin"
        return f"{outcome} (separation {self.stated:.2f}, with the order swapped {self.swapped:.2f})"


def swap_test(net: nn.Module, contract: Contract, reader: Reader) -> SwapResult:
    """Compare both colour orders on a few people of a set of aligned faces.

    Raises:
        ValueError: fewer than two people with two images each; an image that cannot be read.
    """
    indices = _several_of_each(reader)
    images = np.empty((len(indices), contract.size, contract.size, 3), np.uint8)
    for image, index in zip(images, indices, strict=True):
        decode_into(image, reader[int(index)][0], resize=True)
    ids = np.asarray(reader.ids)[indices]
    other = replace(contract, colour="BGR" if contract.colour == "RGB" else "RGB")
    separations = [_separation(net, each, torch.from_numpy(images), ids) for each in (contract, other)]
    return SwapResult(separations[0], separations[1], len(images))


def _several_of_each(reader: Reader) -> npt.NDArray[np.int64]:
    """Indices of up to 4 images of each of up to 64 people, spread over the set."""
    ids = np.asarray(reader.ids)
    people, counts = np.unique(ids, return_counts=True)
    people = people[counts >= 2]
    if len(people) < 2:
        raise ValueError(
            f"the swap test needs two images each of two people or more, not {len(people)}; "
            "use a set with several images per person"
        )
    people = people[np.linspace(0, len(people) - 1, min(_IDENTITIES, len(people))).astype(int)]
    return np.concatenate([np.flatnonzero(ids == person)[:_PER_IDENTITY] for person in people])


@torch.no_grad()
def _separation(
    net: nn.Module, contract: Contract, images: torch.Tensor, ids: npt.NDArray[np.int64]
) -> float:
    net.eval()
    embeddings_ND = torch.cat([F.normalize(net(contract.normalise(part))) for part in images.split(_BATCH)])
    cosines_NN = (embeddings_ND @ embeddings_ND.T).numpy()
    pair = np.triu(np.ones_like(cosines_NN, bool), 1)
    same = ids[:, None] == ids
    genuine, impostor = cosines_NN[pair & same], cosines_NN[pair & ~same]
    spread = np.sqrt((genuine.var() + impostor.var()) / 2)
    return float((genuine.mean() - impostor.mean()) / max(spread, 1e-12))
