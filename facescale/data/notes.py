"""What a training should say of its data before it starts."""

import numpy as np

from facescale.data.loading.decode import decode, resized
from facescale.data.readers.base import BadRecordError, Reader, repeated_sources
from facescale.data.readers.stream import StreamReader
from facescale.data.sampling.counter_rng import ORDER, permuted

SAMPLE = 96
_LEAST = 32  # images below which a mean face says nothing
_SIDE = 32  # pixels that a sampled image is shrunk to
_LUMA = (0.299, 0.587, 0.114)
# Median correlation of an image's middle with the mean face of the others. Measured: aligned photos 0.53
# (CelebA, CFP) and 0.71 (LFW), synthetic faces 0.28; the same photos unaligned 0.12 to 0.16.
_UNALIGNED = 0.2


def data_notes(reader: Reader) -> list[str]:
    """Sentences about sources that are named twice and about pictures that look unaligned."""
    return [*source_notes(reader), *alignment_notes(reader)]


def source_notes(reader: Reader) -> list[str]:
    """A sentence about each source that is there twice."""
    return [
        f"'{source}' is there twice, and its identities count as different people each time"
        for source in repeated_sources(reader)
    ]


def alignment_notes(reader: Reader, sample: int = SAMPLE) -> list[str]:
    """Judge without landmarks: aligned faces have one size, and the same parts at the same places.

    Synthetic faces are not judged: they are aligned, and few people of them look less alike than photos.

    Args:
        reader: the images.
        sample: how many are looked at.
    """
    sizes: set[str] = set()
    small: list[np.ndarray] = []
    first_N = np.arange(min(sample, SAMPLE, len(reader)))
    is_stream = isinstance(reader, StreamReader)  # any other image than the first would have to be waited for
    chosen_N = first_N if is_stream else permuted(first_N, len(reader), ORDER)
    for index in chosen_N.tolist():
        if reader.key(index).startswith("synthetic:"):
            continue
        try:
            pixels = decode(reader[index][0])
        except BadRecordError:
            continue
        sizes.add(f"{pixels.shape[1]}x{pixels.shape[0]}")
        small.append(resized(pixels, _SIDE, _SIDE) @ np.array(_LUMA))
    advice = "they look unaligned; facescale prepare aligns photos"
    if len(sizes) > 1:
        some = ", ".join(sorted(sizes)[:3])
        return [f"{len(small)} sampled images have {len(sizes)} different sizes ({some}): {advice}"]
    if len(small) >= _LEAST and (found := _likeness(np.stack(small))) < _UNALIGNED:
        return [f"sampled faces are at different places (likeness to their mean {found:.2f}): {advice}"]
    return []


def _likeness(grey_NHW: np.ndarray) -> float:
    """Median correlation of the middle of each image with that of the mean of the others."""
    quarter = _SIDE // 4
    x_ND = grey_NHW[:, quarter:-quarter, quarter:-quarter].reshape(len(grey_NHW), -1)
    x_ND = x_ND - x_ND.mean(axis=1, keepdims=True)
    x_ND /= np.linalg.norm(x_ND, axis=1, keepdims=True) + 1e-6
    others_ND = x_ND.sum(axis=0) - x_ND
    others_ND /= np.linalg.norm(others_ND, axis=1, keepdims=True) + 1e-6
    return float(np.median((x_ND * others_ND).sum(axis=1)))
