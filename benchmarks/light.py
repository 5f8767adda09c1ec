"""A light protocol: a network of 340,000 weights, and faces held in memory as small pixels.

``evidence.py`` trains hundreds of times with it. Names that a config can give are added to the package's
tables by `registered`: the network ``light``, the data ``held:train`` and the protocol ``held:test``.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from facescale import backbones
from facescale.arrays import IntArray, Pixels
from facescale.backbones.layers import PReLU, in_full_precision
from facescale.data import READERS, open_reader
from facescale.data.images import Images, IndexedImages, ReaderImages
from facescale.data.loading.decode import decode_into
from facescale.data.synthetic.faces import SyntheticFaces
from facescale.evaluate.protocols import open as protocols
from facescale.evaluate.protocols.options import Opening, opener
from facescale.evaluate.protocols.pairs import Pairs
from facescale.evaluate.verification import Verification

SIDE = 40  # of the part of the face that the network sees, pixels
WHOLE, CROP = 54, [6, 12, SIDE]  # photographs: the window of small_faces (75, [9, 17, 56]), at this size
DRAWN_IMAGES = 10  # drawn of each synthetic person; a training takes the first ones
_DIRECTIONS, _CELL = 8, 4


class OrientedGradients(nn.Module):
    """Fixed: brightness gradients by direction, averaged over cells, each cell normalised by its neighbours.

    As in histograms of oriented gradients (Dalal and Triggs, CVPR 2005), which leaves the first layers of a
    network, the most expensive ones, nothing to learn.
    """

    def __init__(self) -> None:
        super().__init__()
        angle = [2 * math.pi * k / _DIRECTIONS for k in range(_DIRECTIONS)]
        rows = [[math.cos(a), math.sin(a)] for a in angle]
        self.register_buffer("directions", torch.tensor(rows))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, S, S) to (B, 8, S / 4, S / 4)."""
        x = x.float()
        grey = ((x[:, 0] + x[:, 1] + x[:, 2]) / 3)[:, None]
        grey = F.pad(grey, (1, 1, 1, 1), mode="replicate")
        across = grey[:, :, 1:-1, 2:] - grey[:, :, 1:-1, :-2]
        down = grey[:, :, 2:, 1:-1] - grey[:, :, :-2, 1:-1]
        found = (self.directions @ torch.cat([across, down], 1).flatten(2)).relu()
        found = found.unflatten(2, x.shape[2:])
        cell = (F.avg_pool2d(found, _CELL) + 1e-4).sqrt()
        strength = F.avg_pool2d(cell.square().sum(1, keepdim=True), 3, 1, 1)
        return cell / (strength + 1e-3).sqrt()


class Light(nn.Module):
    """Oriented gradients, two convolutions, a linear map with batch norm.

    Args:
        embedding_size: width of the embedding.
        input_size: side of the (square) image in pixels, a multiple of 4.
    """

    def __init__(self, embedding_size: int, *, input_size: int = SIDE) -> None:
        super().__init__()
        self.embedding_size, self.input_size = embedding_size, input_size
        self.gradients = OrientedGradients()
        self.layers = nn.Sequential(
            *(nn.Conv2d(_DIRECTIONS, 32, 3, 1, 1, bias=False), nn.BatchNorm2d(32), PReLU(32)),
            *(nn.Conv2d(32, 96, 3, 2, 1, bias=False), nn.BatchNorm2d(96), PReLU(96)),
        )
        side = -(-(input_size // _CELL) // 2)
        self.features = nn.Sequential(
            nn.Flatten(),
            nn.Linear(96 * side * side, embedding_size, bias=False),
            nn.BatchNorm1d(embedding_size),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, S, S) to embeddings (B, embedding_size)."""
        return in_full_precision(self.features, self.layers(self.gradients(x)))


@dataclass(frozen=True)
class HeldFaces:
    """A reader of pixels in memory.

    Attributes:
        pixels: uint8 (M, S, S, 3).
        ids: int64 (N,), identities from 0, none left out.
        index: int64 (N,), which of the pixels each image is.
    """

    pixels: Pixels
    ids: IntArray
    index: IntArray

    @property
    def num_ids(self) -> int:
        """Number of identities."""
        return int(self.ids.max()) + 1

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Pixels, int]:
        """Image ``index`` and its identity."""
        return self.pixels[self.index[index]], int(self.ids[index])

    def key(self, index: int) -> str:
        """Number of the picture."""
        return str(self.index[index])

    def relabelled(self, ids: IntArray) -> "HeldFaces":
        """The same images under other identities."""
        return replace(self, ids=ids)

    def kept(self, places: IntArray) -> "HeldFaces":
        """Some of the images; identities without any are gone."""
        ids = np.unique(self.ids[places], return_inverse=True)[1]
        return HeldFaces(self.pixels, ids.astype(np.int64), self.index[places])


def flipped(ids: IntArray, share: float, rng: np.random.Generator) -> IntArray:
    """``share`` of the images under an identity drawn from all others (label flips)."""
    moved, num_ids = rng.permutation(len(ids))[: round(share * len(ids))], int(ids.max()) + 1
    wrong = ids.copy()
    wrong[moved] = (ids[moved] + rng.integers(1, num_ids, len(moved))) % num_ids
    return wrong


def conflicting(ids: IntArray, share: float, rng: np.random.Generator) -> IntArray:
    """``share`` of the identities cut in two at random: two classes show one person."""
    number, wrong = int(ids.max()) + 1, ids.copy()
    for identity in rng.permutation(number)[: round(share * number)].tolist():
        images = rng.permutation(np.flatnonzero(ids == identity))
        if len(images) > 1:
            wrong[images[: len(images) // 2]] = number
            number += 1
    return wrong


def few(ids: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Places of ``count`` images of each identity, drawn at random, ascending."""
    order = rng.permutation(len(ids))
    by_id = order[np.argsort(ids[order], kind="stable")]
    place = np.arange(len(ids)) - np.searchsorted(ids[by_id], ids[by_id])
    return np.sort(by_id[place < count])


def decoded(images: Images, size: int) -> Pixels:
    """All images as uint8 (N, size, size, 3)."""
    out = np.empty((len(images), size, size, 3), np.uint8)
    for index, into in enumerate(out):
        decode_into(into, images[index], resize=True)
    return out


class Faces:
    """Training sets and tests of the protocol, decoded once and kept in a folder.

    Args:
        train: spec of the photographs.
        lfw: pairs of photographs.
        pairs: number of pairs of synthetic faces.
        cache: folder for decoded pixels.
    """

    def __init__(self, train: Sequence[str], lfw: str, pairs: int, cache: Path) -> None:
        self._train, self._lfw, self._pairs, self._cache = list(train), lfw, pairs, cache
        self._held: dict[str, Any] = {}

    def training(self, spec: str, seed: int) -> HeldFaces:
        """``real``, with ``:flips=0.2``, ``:conflict=0.5`` or ``:few=2``; or ``drawn:ids=2000,images=5``."""
        kind, _, options = spec.partition(":")
        values = dict(part.split("=") for part in options.split(",")) if options else {}
        if kind == "drawn":
            ids, images = int(values["ids"]), int(values["images"])
            held = self._photos(f"drawn{ids}", lambda: SyntheticFaces(ids, DRAWN_IMAGES, size=SIDE), SIDE)
            return held.kept(np.flatnonzero(held.index % DRAWN_IMAGES < images))
        held = self._photos("real", lambda: open_reader(self._train), WHOLE)
        rng = np.random.default_rng([17, seed])
        if "flips" in values:
            return held.relabelled(flipped(held.ids, float(values["flips"]), rng))
        if "conflict" in values:
            return held.relabelled(conflicting(held.ids, float(values["conflict"]), rng))
        return held.kept(few(held.ids, int(values["few"]), rng)) if "few" in values else held

    def test(self, spec: str) -> Pairs:
        """LFW for photographs, pairs of people outside the training set for synthetic faces."""
        if spec.startswith("drawn"):
            return self._once("pairs", lambda: self._opened(f"synthetic:pairs={self._pairs}", "pairs", SIDE))
        return self._once("lfw", lambda: self._opened(self._lfw, "lfw", WHOLE))

    def _photos(self, name: str, make: Any, size: int) -> HeldFaces:
        def held() -> HeldFaces:
            reader = make()
            pixels = self._pixels(name, ReaderImages(reader), size)
            return HeldFaces(pixels, np.asarray(reader.ids), np.arange(len(reader)))

        return self._once(name, held)

    def _opened(self, spec: str, name: str, size: int) -> Pairs:
        pairs = protocols.open_verification(spec, size).pairs
        keys = [pairs.images.key(index) for index in range(len(pairs.images))]
        return replace(pairs, images=IndexedImages(list(self._pixels(name, pairs.images, size)), keys))

    def _pixels(self, name: str, images: Images, size: int) -> Pixels:
        file = self._cache / f"{name}.npy"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            np.save(file, decoded(images, size))
        return np.load(file)

    def _once(self, name: str, make: Any) -> Any:
        if name not in self._held:
            self._held[name] = make()
        return self._held[name]


@contextmanager
def registered(faces: HeldFaces, test: Pairs) -> Iterator[None]:
    """Inside: configs may name the network ``light``, the data ``held:train`` and the test ``held:test``."""

    @opener
    def open_test(path: str, how: Opening) -> Verification:
        return Verification(how.name, test.limited(how.limit), *how.images)

    with (
        patch.dict(backbones.BACKBONES, light=Light),
        patch.dict(READERS, held=lambda rest: faces),
        patch.dict(protocols.KINDS, held=open_test),
    ):
        yield
