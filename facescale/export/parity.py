"""Compares the embeddings of two models, on real faces if there are any."""

from pathlib import Path

import numpy as np

from facescale.arrays import Pixels
from facescale.config import load_config
from facescale.data import open_reader
from facescale.data.images import Images, ReaderImages
from facescale.data.loading.decode import decode_into
from facescale.data.synthetic.faces import SyntheticFaces
from facescale.evaluate.protocols.open import open_verification
from facescale.export.graph import same_faces
from facescale.inference.model import Model
from facescale.run import RunDir

_BATCHES = (1, 5)  # one, because most callers use that; several, because some graphs fail there
_WANTED = sum(_BATCHES)


class ParityError(RuntimeError):
    """The embeddings of an exported file differ from those of the network; the file was not written."""


def pick_faces(images: str | Path | Pixels | None, run: str | Path | None, size: int) -> tuple[Pixels, str]:
    """Faces to compare models on, uint8 RGB (N, size, size, 3), and what they are in words.

    Args:
        images: from the caller: pixels, or what `facescale.data.open_reader` takes.
        run: else, where this is a run folder, its first evaluation set. Else, faces are synthetic.
        size: side in pixels; images that are read are scaled to it.

    Raises:
        ValueError: no image, or one that cannot be read.
    """
    if isinstance(images, np.ndarray):
        if len(images) == 0:
            raise ValueError("no images to compare on; pass at least one, or None for synthetic faces")
        # The same few again where there are not enough: what is compared is numbers, not people.
        return images[np.arange(_WANTED) % len(images)], f"{min(len(images), _WANTED)} user images"
    source: Images
    if images is not None:
        source, words = ReaderImages(open_reader(str(images))), f"images of {images}"
    else:
        source, words = _of_run(run)
    faces = np.empty((_WANTED, size, size, 3), np.uint8)
    for face, index in zip(faces, np.linspace(0, len(source) - 1, _WANTED).astype(int), strict=True):
        decode_into(face, source[int(index)], resize=True)
    return faces, f"{_WANTED} {words}"


def _of_run(run: str | Path | None) -> tuple[Images, str]:
    synthetic = ReaderImages(SyntheticFaces(_WANTED, 1)), "synthetic faces"
    config = RunDir(run).config if run else None
    if config is None or not config.is_file():
        return synthetic
    for name, path in load_config(config).eval.sets.items():
        try:
            return open_verification(path).pairs.images, f"images of the run's evaluation set {name}"
        except ValueError:
            continue  # it may lie on another machine
    return synthetic


def compare(network: Model, other: Model, faces: Pixels) -> tuple[float, float]:
    """Largest relative difference and smallest cosine between two models' embeddings of the same faces.

    In batches of 1 and 5; raw embeddings if both provide them. The relative difference is the largest
    difference of two numbers over the largest number. The faces have the size that ``other`` takes.
    """
    differences, cosines, start = [], [], 0
    for size in _BATCHES:
        batch = faces[start : start + size]
        start += size
        embed = Model.embed if other.encoder.unit_output else Model.embed_raw
        b = embed(other, batch).astype(np.float64)
        a = embed(network, same_faces(batch, network.contract.size)).astype(np.float64)
        differences.append(np.abs(a - b).max() / np.abs(a).max())
        cosines.append(((a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)).min())
    return float(np.max(differences)), float(np.min(cosines))
