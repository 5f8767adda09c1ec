"""Turn images into unit embeddings, batch by batch, with the mirrored view added.

Shapes: B images of a batch, H W their size, D embedding width, N images in all.
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from facescale.arrays import Pixels
from facescale.data.images import Images
from facescale.data.loading.iterate import iter_images
from facescale.evaluate.feature_cache import CachedFeatures, FeatureCache, Features, digests_of, merged
from facescale.evaluate.metrics import require_finite, unit_rows
from facescale.evaluate.shares import EvaluationStoppedError, Rows, computed_in_shares, is_main, rows_of_main

if TYPE_CHECKING:  # torch takes seconds to import, and reading protocols does not need it
    from torch import Tensor

    from facescale.distributed import Dist

    # uint8 RGB (B, H, W, 3) -> raw embeddings (B, D), of any float type, on any device
    Embed = Callable[[Tensor], Tensor]

CHUNK = 1 << 15  # images whose features are looked up, computed and kept at once
SCALING = (
    "area average or bicubic, in whole numbers"  # of images that have another size; names cached features
)
MAX_BATCH_CHANGE = 0.1  # fraction of the longest embedding; half precision changes it far less


@dataclass(frozen=True)
class Embedded:
    """Embeddings of N images.

    Attributes:
        unit_ND: float32 (N, D), rows of length 1.
        norm_N: float32 (N,), length of the raw embedding, the mean of both views where there are two; it
            often follows image quality.
        sum_norm_N: float32 (N,), length of the sum of both views; times the unit row it is that sum.
    """

    unit_ND: npt.NDArray[np.float32]
    norm_N: npt.NDArray[np.float32]
    sum_norm_N: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Extraction:
    """How embeddings are obtained, apart from the network; nothing here changes a figure.

    Attributes:
        cache: embeddings that were computed before.
        dist: the processes that share the work, each with the same network; None: this one alone.
        stop_asked: called before each batch; True on one process ends the evaluation on all of them.
    """

    cache: FeatureCache | None = None
    dist: "Dist | None" = None
    stop_asked: Callable[[], bool] = lambda: False


def embed_set(
    embed: "Embed",
    images: Images,
    indices: Sequence[int],
    *,
    size: int,
    flip: bool,
    batch_size: int,
    extraction: Extraction | None = None,
    sizes: Counter[str] | None = None,
) -> Embedded:
    """Embed the images at ``indices``, in order; what the cache knows is not computed again.

    Several processes compute a share each, and all get all rows.

    Args:
        embed: the network; called without gradient.
        images: where they are.
        indices: which of them, N.
        size: side that the network takes, pixels; images of another size are resized.
        flip: add the mirrored view.
        batch_size: images in one forward pass; no embedding depends on it.
        extraction: the cache and the processes.
        sizes: receives the number of images by "WIDTHxHEIGHT", as they were before scaling.

    Raises:
        ValueError: no image, one that cannot be read, or what `embed_images` refuses.
        EvaluationStoppedError: a process was asked to stop.
    """
    how = extraction or Extraction()
    cached = how.cache.under(size=size, flip=flip, scaling=SCALING) if how.cache else None

    def compute(part: Sequence[int]) -> Rows:
        found: dict[int, tuple[int, int]] = {}
        batches = decoded_batches(images, part, size, batch_size, sizes=found)
        with closing(batches):
            embedded = embed_images(embed, _until_stopped(batches, how.stop_asked), flip)
        size_N2 = np.array([found[index] for index in part], np.int32)
        return embedded.unit_ND, embedded.norm_N, embedded.sum_norm_N, size_N2

    def computed(part: Sequence[int]) -> Features:
        return Features(*computed_in_shares(how.dist, part, batch_size, compute))

    rows: Embedded | None = None
    for start in range(0, max(len(indices), 1), CHUNK):
        part = indices[start : start + CHUNK]
        features = _known_or(computed, cached, images, part, how.dist) if cached else computed(part)
        if rows is None:  # as large as all: a list of chunks would be in memory twice
            shape = len(indices), features.unit_ND.shape[1]
            rows = Embedded(*(np.empty(shape[:axes], np.float32) for axes in (2, 1, 1)))
        here = slice(start, start + len(part))
        rows.unit_ND[here], rows.norm_N[here] = features.unit_ND, features.norm_N
        rows.sum_norm_N[here] = features.sum_norm_N
        if sizes is not None:
            sizes.update(f"{width}x{height}" for width, height in features.size_N2)
    assert rows is not None
    return rows


def _until_stopped(batches: Iterable[Pixels], stop_asked: Callable[[], bool]) -> Iterator[Pixels]:
    for batch in batches:
        if stop_asked():
            raise EvaluationStoppedError
        yield batch


def _known_or(
    compute: Callable[[Sequence[int]], Features],
    cached: CachedFeatures,
    images: Images,
    part: Sequence[int],
    dist: "Dist | None",
) -> Features:
    """Features of some images: those that the cache has, and the others computed and kept.

    The main process alone reads and writes the cache: others may see another state of it, or none.
    """
    digests_N2 = digests_of(images, part) if is_main(dist) else np.empty((0, 2), np.uint64)
    known_N, found = cached.find(digests_N2)
    (known_N,) = rows_of_main(dist, [known_N])
    if known_N.any():
        found = Features(*rows_of_main(dist, list(vars(found).values()) if found else []))
        if known_N.all():
            return found
    new = compute([index for index, is_known in zip(part, known_N, strict=True) if not is_known])
    if is_main(dist):
        cached.keep(digests_N2[~known_N], new)
    return new if found is None else merged(known_N, found, new)


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

    from facescale.ops import embed_views, fuse_views

    unit: list[npt.NDArray[np.float32]] = []
    norm: list[npt.NDArray[np.float32]] = []
    sum_norm: list[npt.NDArray[np.float32]] = []
    with torch.no_grad():
        for batch in batches:
            images_BHW3 = torch.from_numpy(batch)
            views = [raw_BD.float() for raw_BD in embed_views(embed, images_BHW3, flip, axis=2)]
            if not unit:
                _check_batch_independence(embed, images_BHW3, views[0])
            fused_BD = fuse_views(views).cpu().numpy()
            require_finite(fused_BD, "embeddings")
            unit.append(unit_rows(fused_BD).astype(np.float32))
            norm.append(torch.stack(views).norm(dim=2).mean(0).cpu().numpy())
            sum_norm.append(torch.stack(views).sum(0).norm(dim=1).cpu().numpy())
    if not unit:
        raise ValueError("there are no images to embed; pass at least one batch")
    return Embedded(np.concatenate(unit), np.concatenate(norm), np.concatenate(sum_norm))


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
    images: Images,
    indices: Sequence[int],
    size: int,
    batch_size: int,
    workers: int = 2,
    sizes: dict[int, tuple[int, int]] | None = None,
) -> Generator[Pixels, None, None]:
    """Yield uint8 (B, size, size, 3) batches of the images at ``indices``, decoded ahead by threads.

    Images of another size are resized; ``sizes`` receives index -> (width, height).

    Raises:
        ValueError: an image cannot be read, with its key.
    """
    bad: dict[int, str] = {}
    with closing(
        iter_images(
            images,
            indices,
            batch_size=batch_size,
            size=size,
            workers=workers,
            resize=True,
            bad=bad,
            sizes=sizes,
        )
    ) as batches:
        for batch, _ in batches:
            for index, reason in bad.items():
                raise ValueError(
                    f"image '{images.key(index)}' of the protocol cannot be read: {reason}; "
                    "a protocol must be complete, so replace the image or remove its pairs"
                )
            yield batch.numpy()
