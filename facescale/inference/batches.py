"""What a user passes as images -> the uint8 batch that a model takes."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from facescale.arrays import Pixels
from facescale.data.loading.decode import resized
from facescale.model_card import Contract

# B batch, H W height and width in pixels, S side that the model takes


def as_batch(images: npt.ArrayLike | Tensor | Sequence[Pixels], contract: Contract) -> Tensor:
    """Check images and bring them to the contract's size, uint8 RGB (B, S, S, 3).

    Args:
        images: uint8 RGB (B, H, W, 3); under a contract that resizes, also a list of (H, W, 3) of any sizes.
        contract: of the model.

    Raises:
        ValueError: images of another type or shape, or of another size where the contract does not resize.
    """
    if contract.resize != "none" and isinstance(images, list | tuple):
        return torch.cat([as_batch(np.asarray(image)[None], contract) for image in images])
    array = images if isinstance(images, Tensor) else np.asarray(images)
    side = contract.size
    kind, shape = str(array.dtype).removeprefix("torch."), tuple(array.shape)
    if kind != "uint8":
        raise ValueError(
            f"images are {kind}, not uint8; pass decoded RGB pixels 0..255, the model normalises them"
        )
    if len(shape) != 4 or shape[3] != 3:
        raise ValueError(
            f"images have shape {shape}, not (B, {side}, {side}, 3); pass a batch, channels last"
        )
    if shape[1:3] != (side, side):
        if contract.resize == "none":
            raise ValueError(
                f"images are {shape[2]}x{shape[1]} pixels, the model takes {side}x{side}; align the faces"
                " to that size first"
            )
        pixels = array.cpu().numpy() if isinstance(array, Tensor) else array
        array = np.stack([resized(one, side, side) for one in pixels])
    if isinstance(array, Tensor):
        return array
    # Writable too: torch warns about read-only arrays, and decoded pixels often are read-only.
    return torch.from_numpy(np.require(array, requirements=("C", "W")))
