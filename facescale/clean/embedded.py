"""All readable images of a source as embeddings; what was computed before an interruption is kept.

N images, D embedding size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray, Pixels
from facescale.data.images import Images
from facescale.data.loading.iterate import iter_images
from facescale.evaluate.embedding import SCALING, embed_images
from facescale.evaluate.feature_cache import CachedFeatures, FeatureCache, Features, digests_of, merged
from facescale.inference.model import Model
from facescale.jobs import Part

_CHUNK = 1 << 12  # images after which the work is kept
_NO_LIMIT = 1 << 60  # bytes: the folder is the user's, and nothing else is in it

Progress = Callable[[str, int, int], None]  # what is embedded, images done, images in all


@dataclass(frozen=True)
class Embedding:
    """The network, and how it is used.

    Attributes:
        model: the network.
        features: folder in which embeddings are kept.
        batch_size: images in one forward pass.
        workers: decoding threads.
        progress: told after every few thousand images.
    """

    model: Model
    features: Path
    batch_size: int = 128
    workers: int = 2
    progress: Progress | None = None


class ChosenImages:
    """The readable images of a source, by row."""

    def __init__(self, images: Images, index_N: IntArray) -> None:
        self._images, self._index_N = images, index_N

    def __len__(self) -> int:
        return len(self._index_N)

    def __getitem__(self, row: int) -> bytes | Pixels:
        return self._images[int(self._index_N[row])]

    def key(self, row: int) -> str:
        """Name of the image of a row."""
        return self._images.key(int(self._index_N[row]))


@dataclass(frozen=True)
class Embedded:
    """The readable images of a source.

    Attributes:
        images: N images.
        index_N: place of each in the source.
        unit_ND: float32, unit embeddings.
        pixels_N: width times height of each, before scaling.
        bad: name -> reason of the images that cannot be read.
    """

    images: ChosenImages
    index_N: IntArray
    unit_ND: npt.NDArray[np.float32]
    pixels_N: IntArray
    bad: dict[str, str]


def embed_readable(images: Images, how: Embedding, what: str) -> Embedded:
    """Embed the images that can be read; those of another size are scaled.

    Memory is that of the result, four bytes a number; the images pass through in batches.

    Args:
        images: the source.
        how: the network.
        what: how to call the source.

    Raises:
        ValueError: no image can be read, or the network is damaged (see `embed_images`).
    """
    bad: dict[int, str] = {}
    parts: list[Features] = []
    places: list[int] = []
    for readable, features in _features_of(images, chunks_of(len(images)), how, what, bad):
        places += readable
        parts += [] if features is None else [features]
    reasons = {images.key(index): reason for index, reason in sorted(bad.items())}
    if not places:
        first = next((f": '{key}': {reason}" for key, reason in reasons.items()), "; it holds none")
        raise ValueError(f"no image of '{what}' can be read{first}")
    index_N = np.array(places, np.int64)
    unit_ND = np.concatenate([part.unit_ND for part in parts])
    pixels_N = np.concatenate([part.size_N2.astype(np.int64).prod(axis=1) for part in parts])
    return Embedded(ChosenImages(images, index_N), index_N, unit_ND, pixels_N, reasons)


def chunks_of(num_images: int, part: Part | None = None) -> list[range]:
    """The images of a source in chunks, which are embedded and kept together.

    A part consists of whole chunks and so of the same batches, whatever the number of parts.

    Args:
        num_images: of the source.
        part: the chunks of one part; by default all.
    """
    starts = range(0, num_images, _CHUNK)
    own = starts if part is None else [starts[place] for place in part.span(len(starts))]
    return [range(start, min(start + _CHUNK, num_images)) for start in own]


def embed_chunks(images: Images, chunks: Sequence[range], how: Embedding, what: str) -> int:
    """Embed part of a source and keep its embeddings, which `embed_readable` then finds.

    Args:
        images: the source.
        chunks: some of `chunks_of` it.
        how: the network.
        what: how to call the source.

    Returns:
        How many of the images can be read.
    """
    return sum(len(readable) for readable, _ in _features_of(images, chunks, how, what, {}))


def _features_of(
    images: Images, chunks: Sequence[range], how: Embedding, what: str, bad: dict[int, str]
) -> Iterator[tuple[list[int], Features | None]]:
    """The readable images of each chunk, and their features, which are kept."""
    size, flip = how.model.contract.size, how.model.needs_flip
    cached = FeatureCache(how.features, how.model.cache_key(), _NO_LIMIT).under(
        size=size, flip=flip, scaling=SCALING
    )
    done, total = 0, sum(map(len, chunks))
    for chunk in chunks:
        yield _features(images, chunk, how, cached, bad)
        done += len(chunk)
        if how.progress:
            how.progress(what, done, total)


def _features(
    images: Images, part: Sequence[int], how: Embedding, cached: CachedFeatures, bad: dict[int, str]
) -> tuple[list[int], Features | None]:
    """The readable images of a part, in order, and their features."""
    digests_N2 = digests_of(images, part)
    known_N, found = cached.find(digests_N2)
    rest = [index for index, known in zip(part, known_N.tolist(), strict=True) if not known]
    computed, new = _computed(images, rest, how, bad) if rest else ([], None)
    if new is not None:
        cached.keep(digests_N2[np.array(computed) - part[0]], new)
    known = [index for index, is_known in zip(part, known_N.tolist(), strict=True) if is_known]
    readable = sorted([*known, *computed])
    if found is None or new is None:
        return readable, found or new
    return readable, merged(np.isin(readable, known), found, new)


def _computed(
    images: Images, indices: Sequence[int], how: Embedding, bad: dict[int, str]
) -> tuple[list[int], Features | None]:
    done: list[int] = []
    sizes: dict[int, tuple[int, int]] = {}

    def batches() -> Iterator[Pixels]:
        for batch, index in iter_images(
            images,
            indices,
            batch_size=how.batch_size,
            size=how.model.contract.size,
            workers=how.workers,
            resize=True,
            bad=bad,
            sizes=sizes,
        ):
            if len(index):
                done.extend(index.tolist())
                yield batch.numpy()

    waiting = batches()
    first = next(waiting, None)
    if first is None:
        return [], None
    embedded = embed_images(how.model.encoder, chain([first], waiting), how.model.needs_flip)
    size_N2 = np.array([sizes[index] for index in done], np.int32)
    return done, Features(embedded.unit_ND, embedded.norm_N, embedded.sum_norm_N, size_N2)
