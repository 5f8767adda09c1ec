"""Turn images into unit embeddings, batch by batch, with the mirrored view added.

Shapes: B images of a batch, H W their size, D embedding width, N images in all.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from facescale.arrays import Pixels
from facescale.data.loading.decode import decode_into
from facescale.data.readers.base import BadRecordError
from facescale.evaluate.metrics import require_finite, unit_rows
from facescale.evaluate.protocols.images import Images

if TYPE_CHECKING:  # torch takes seconds to import, and reading protocols does not need it
    from torch import Tensor

    # uint8 RGB (B, H, W, 3) -> raw embeddings (B, D), of any float type, on any device
    Embed = Callable[[Tensor], Tensor]

MAX_BATCH_CHANGE = 0.1  # fraction of the longest embedding; half precision changes it far less


@dataclass(frozen=True)
class Embedded:
    """Embeddings of N images.

    Attributes:
        unit_ND: float32 (N, D), rows of length 1.
        norm_N: float32 (N,), length of the raw embedding, the mean of both views where there are two; it
            often follows image quality.
    """

    unit_ND: npt.NDArray[np.float32]
    norm_N: npt.NDArray[np.float32]


def embed_images(embed: "Embed", batches: Iterable[Pixels], flip: bool = True) -> Embedded:
    """Embed batches of images; the rows do not depend on how the images are cut into batches.

    With ``flip``, the raw embeddings of an image and of its mirror image are added, then scaled to length 1.

    Args:
        embed: the network; called without gradient.
        batches: uint8 RGB (B, H, W, 3) each.
        flip: add the mirrored view.

    Raises:
        ValueError: no image, non-finite embeddings, or an embedding that depends on its batch.
    """
    import torch

    unit: list[npt.NDArray[np.float32]] = []
    norm: list[npt.NDArray[np.float32]] = []
    with torch.no_grad():
        for batch in batches:
            images_BHW3 = torch.from_numpy(batch)
            views = [embed(images_BHW3).float()]
            if not unit:
                _check_batch_independence(embed, images_BHW3, views[0])
            if flip:
                views.append(embed(images_BHW3.flip(2)).float())
            fused_BD = torch.stack(views).sum(0).cpu().numpy()
            require_finite(fused_BD, "embeddings")
            unit.append(unit_rows(fused_BD).astype(np.float32))
            norm.append(torch.stack(views).norm(dim=2).mean(0).cpu().numpy())
    if not unit:
        raise ValueError("there are no images to embed; pass at least one batch")
    return Embedded(np.concatenate(unit), np.concatenate(norm))


def _check_batch_independence(embed: "Embed", images_BHW3: "Tensor", x_BD: "Tensor") -> None:
    """Embed the first two images alone: batch norm in training mode would change the result."""
    if len(images_BHW3) > 2:
        change = float((embed(images_BHW3[:2]).float() - x_BD[:2]).norm(dim=1).max() / x_BD.norm(dim=1).max())
        if change > MAX_BATCH_CHANGE:
            raise ValueError(
                f"the embedding of an image changes with the batch it is in (by {change:.0%} of its length); "
                "the network is in training mode: call eval() on it first"
            )


def decoded_batches(
    images: Images, indices: Iterable[int], size: int, batch_size: int, workers: int = 2
) -> Iterator[Pixels]:
    """Yield uint8 (B, size, size, 3) batches of the images at ``indices``, decoded ahead by threads.

    Images of another size are resized.

    Raises:
        ValueError: an image cannot be read, with its key.
    """

    def decoded(chunk: list[int]) -> Pixels:
        batch = np.empty((len(chunk), size, size, 3), np.uint8)
        for out, index in zip(batch, chunk, strict=True):
            try:
                decode_into(out, images[index], resize=True)
            except BadRecordError as error:
                raise ValueError(
                    f"image '{images.key(index)}' of the protocol cannot be read: {error}; "
                    "a protocol must be complete, so replace the image or remove its pairs"
                ) from error
        return batch

    everything = list(indices)
    waiting: deque[Future[Pixels]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for start in range(0, len(everything), batch_size):
            waiting.append(pool.submit(decoded, everything[start : start + batch_size]))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
