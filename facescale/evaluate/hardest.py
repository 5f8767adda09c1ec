"""The pairs of a protocol that a network finds hardest, with small pictures."""

import base64
from typing import Any

import numpy as np

from facescale.arrays import FloatArray, Pixels
from facescale.data.loading.decode import decode, encode_jpeg, resized
from facescale.evaluate.protocols.pairs import Pairs

NUM_HARDEST = 8  # pairs of each kind
THUMBNAIL = 112  # pixels, of the longer side


def hardest_pairs(pairs: Pairs, scores: FloatArray, pictures: bool) -> dict[str, list[dict[str, Any]]]:
    """The genuine pairs with the lowest and the impostor pairs with the highest scores.

    Args:
        pairs: the protocol.
        scores: (N,) cosine of each pair.
        pictures: add a small JPEG of each image, as data URI with its width and height.
    """
    ranked = np.argsort(scores, kind="stable")
    is_same = pairs.is_same[ranked]
    kinds = {"genuine": ranked[is_same], "impostor": ranked[~is_same][::-1]}
    return {
        kind: [_pair(pairs, scores, int(pair), pictures) for pair in order[:NUM_HARDEST]]
        for kind, order in kinds.items()
    }


def _pair(pairs: Pairs, scores: FloatArray, pair: int, pictures: bool) -> dict[str, Any]:
    images = [int(pairs.a[pair]), int(pairs.b[pair])]
    shown: dict[str, Any] = {
        "score": float(scores[pair]),
        "keys": [pairs.images.key(index) for index in images],
    }
    if pictures:
        shown["pictures"] = [thumbnail(pairs.images[index]) for index in images]
    return shown


def thumbnail(image: bytes | Pixels) -> dict[str, Any]:
    """A small JPEG of an image, in its own shape."""
    pixels = decode(image)
    height, width = pixels.shape[:2]
    scale = min(1.0, THUMBNAIL / max(height, width))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    if scale < 1:
        pixels = resized(pixels, width, height)
    uri = "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(pixels, 85)).decode("ascii")
    return {"uri": uri, "width": width, "height": height}
