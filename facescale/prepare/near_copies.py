"""Near-duplicates: copies of one photo, proposed by embeddings and confirmed by pixels.

N images, P pairs, D embedding size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from facescale.arrays import FloatArray, IntArray, Pixels
from facescale.data.images import Images
from facescale.data.loading.decode import decode, encode_jpeg, resized
from facescale.data.readers.base import BadRecordError
from facescale.prepare.duplicates import Embeddings, near_pairs, pairs_between
from facescale.prepare.same_photo import SAME, agreement

SAMPLE = 256  # images that are copied to find out how close copies are
_LOST = 0.02  # of these copies, the fraction that may lie below the threshold
_CUT = 0.08  # of a side, the most that is cut off at each end
_QUALITY = 60  # of the JPEG
_PER_IMAGE = 20  # pairs compared by pixels, on average at most

Embed = Callable[[npt.NDArray[np.uint8]], Embeddings]  # uint8 (B, S, S, 3) -> unit rows (B, D)


@dataclass(frozen=True)
class Copies:
    """Pairs of images that show one photo.

    Attributes:
        first_P: one image of each pair.
        second_P: the other.
        cosine_P: of their embeddings.
        agreement_P: see `facescale.prepare.same_photo.agreement`.
    """

    first_P: IntArray
    second_P: IntArray
    cosine_P: FloatArray
    agreement_P: FloatArray


def near_copies(images: Images, unit_ND: Embeddings, threshold: float, same: float = SAME) -> Copies:
    """Copies within a set: pairs with cosine >= ``threshold`` whose pixels agree.

    Time is the square of N for the cosines, and a millisecond of one core for each pair above the
    threshold, of which the nearest 20 per image on average are compared. Memory is one block of cosines
    and these pairs.

    Args:
        images: N images.
        unit_ND: their unit embeddings.
        threshold: cosine, see `copy_threshold`.
        same: least agreement of the pixels.
    """
    first_P, second_P = near_pairs(unit_ND, threshold, most=_PER_IMAGE * len(unit_ND))
    cosine_P = _cosines(unit_ND, unit_ND, first_P, second_P)
    return _confirmed(first_P, second_P, cosine_P, agreement(images, first_P, second_P), same)


def copies_between(
    one: tuple[Images, Embeddings], other: tuple[Images, Embeddings], threshold: float, same: float = SAME
) -> Copies:
    """As `near_copies`, of one image of each of two sets."""
    (images, unit_ND), (others, other_MD) = one, other
    first_P, second_P = pairs_between(unit_ND, other_MD, threshold, most=_PER_IMAGE * len(other_MD))
    cosine_P = _cosines(unit_ND, other_MD, first_P, second_P)
    agreement_P = agreement(_Joined(images, others), first_P, second_P + len(images))
    return _confirmed(first_P, second_P, cosine_P, agreement_P, same)


def copy_threshold(embed: Embed, images: Images, size: int, unit_ND: Embeddings) -> float:
    """The cosine that nearly all copies of these images reach.

    Some images, spread over the set, are cut by up to 8 % at each side, scaled back and saved again; the
    copies are embedded like any image.

    Args:
        embed: the network.
        images: N images.
        size: side that the network takes, pixels.
        unit_ND: their unit embeddings.
    """
    draw = np.random.default_rng(0)
    chosen = np.unique(np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(np.int64))
    copies, used = [], []
    for index in chosen.tolist():
        try:
            content = images[index]
            pixels = decode(content) if isinstance(content, bytes) else content
        except BadRecordError:
            continue
        used.append(index)
        copies.append(resized(_copy(pixels, draw), size, size))
    if not used:
        return 1.0
    copied_BD = np.concatenate([embed(np.stack(copies[n : n + 64])) for n in range(0, len(copies), 64)])
    return float(np.quantile((copied_BD * unit_ND[used]).sum(axis=1), _LOST))


def _copy(pixels: Pixels, draw: np.random.Generator) -> Pixels:
    height, width, _ = pixels.shape
    top, left, bottom, right = (draw.uniform(0, _CUT, 4) * (height, width, height, width)).astype(int)
    inner = np.ascontiguousarray(pixels[top : height - bottom, left : width - right])
    return decode(encode_jpeg(resized(inner, width, height), _QUALITY))


def _cosines(one_ND: Embeddings, other_MD: Embeddings, first_P: IntArray, second_P: IntArray) -> FloatArray:
    cosine_P = np.empty(len(first_P))
    for start in range(0, len(first_P), 1 << 14):
        part = slice(start, start + (1 << 14))
        cosine_P[part] = (one_ND[first_P[part]] * other_MD[second_P[part]]).sum(axis=1)
    return cosine_P


def _confirmed(
    first_P: IntArray, second_P: IntArray, cosine_P: FloatArray, agreement_P: FloatArray, same: float
) -> Copies:
    kept = np.flatnonzero(agreement_P >= same)
    return Copies(first_P[kept], second_P[kept], cosine_P[kept], agreement_P[kept])


class _Joined:
    """The images of two sources, the second after the first."""

    def __init__(self, *sources: Images) -> None:
        self._sources: Sequence[Images] = sources

    def __len__(self) -> int:
        return sum(map(len, self._sources))

    def __getitem__(self, index: int) -> bytes | Pixels:
        source, place = self._place(index)
        return source[place]

    def key(self, index: int) -> str:
        """Name of image ``index`` in its source."""
        source, place = self._place(index)
        return source.key(place)

    def _place(self, index: int) -> tuple[Images, int]:
        first, second = self._sources
        return (first, index) if index < len(first) else (second, index - len(first))
