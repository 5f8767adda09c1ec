"""One-to-one verification: embed a pair protocol and say how well the scores tell people apart."""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import numpy as np

from facescale.data.synthetic.faces import synthetic_pairs
from facescale.evaluate.embedding import decoded_batches, embed_images
from facescale.evaluate.fold_rules import PairResult
from facescale.evaluate.histogram import FloatArray
from facescale.evaluate.metrics import (
    MIN_FALSE_ACCEPTS,
    OperatingPoint,
    Roc,
    operating_point,
    pair_accuracy,
    roc,
)
from facescale.evaluate.protocols.pair_bin import read_bin
from facescale.evaluate.protocols.pair_lists import read_csv, read_lfw
from facescale.evaluate.protocols.pairs import Pairs, ReaderImages
from facescale.registry import nearest

if TYPE_CHECKING:
    from facescale.evaluate.embedding import Embed

FARS = (1e-1, 1e-2, 1e-3, 1e-4)


@dataclass(frozen=True)
class VerificationResult:
    """All that a verification run found out.

    Attributes:
        name: of the protocol.
        pairs: the protocol.
        scores: (N,) cosine of each pair.
        accuracy: accuracy by folds, by insightface's rule.
        curve: the exact ROC.
        points: threshold and TAR at each of the false-accept rates that were asked for.
        mean_norm: mean length of the raw embeddings (insightface prints it as XNorm).
        num_images: images that were embedded.
        flip: whether the mirrored view was added.
    """

    name: str
    pairs: Pairs
    scores: FloatArray
    accuracy: PairResult
    curve: Roc
    points: tuple[OperatingPoint, ...]
    mean_norm: float
    num_images: int
    flip: bool

    def figures(self) -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every scalar; rates that the set cannot support are left out."""
        yield "accuracy", self.accuracy.mean
        yield "accuracy_std", self.accuracy.std
        yield "auc", self.curve.auc
        yield "eer", self.curve.eer
        for point in self.points:
            if point.supported:
                yield f"tar@far={point.far:g}", point.tar
                if point.usable:
                    yield f"threshold@far={point.far:g}", point.threshold
        yield "mean_norm", self.mean_norm

    def unsupported(self) -> list[str]:
        """A sentence for each false-accept rate that this set has too few impostor pairs for."""
        return [
            f"{self.name}: FAR {point.far:g} needs {round(MIN_FALSE_ACCEPTS / point.far):,} impostor pairs "
            f"to speak of, the set has {self.curve.num_impostor:,}"
            for point in self.points
            if not point.supported
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite (no score achieves the rate) is None."""
        return {
            "kind": "verification",
            "name": self.name,
            "source": self.pairs.source,
            "images": self.num_images,
            "genuine_pairs": self.curve.num_genuine,
            "impostor_pairs": self.curve.num_impostor,
            "flip": self.flip,
            "accuracy": {
                "mean": self.accuracy.mean,
                "std": self.accuracy.std,
                "folds": self.accuracy.folds.tolist(),
                "squared_distance_thresholds": self.accuracy.thresholds.tolist(),
                "val": self.accuracy.val,
                "val_std": self.accuracy.val_std,
                "val_far": self.accuracy.far,
            },
            "auc": self.curve.auc,
            "eer": self.curve.eer,
            "operating_points": [
                {key: value if math.isfinite(value) else None for key, value in vars(point).items()}
                for point in self.points
            ],
            "notes": self.unsupported(),
            "mean_norm": self.mean_norm,
        }


@dataclass(frozen=True)
class Verification:
    """An evaluator: `run` a network on a pair protocol.

    Attributes:
        name: of the protocol.
        pairs: the protocol.
        size: side of the images that the network takes, in pixels; others are resized.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.
        fars: false-accept rates at which thresholds are taken.
    """

    name: str
    pairs: Pairs = field(repr=False)
    size: int = 112
    flip: bool = True
    batch_size: int = 128
    fars: tuple[float, ...] = FARS

    def run(self, embed: "Embed") -> Iterator[tuple[str, float]]:
        """Yield (name, value) of every scalar; see `measure`."""
        return self.measure(embed).figures()

    def measure(self, embed: "Embed") -> VerificationResult:
        """Embed every image of the protocol once and score its pairs.

        Args:
            embed: uint8 RGB tensor (B, size, size, 3) -> raw embeddings (B, D).

        Raises:
            ValueError: an image cannot be read, embeddings are not finite, the network is in training mode.
        """
        pairs = self.pairs
        used, row = np.unique(np.concatenate([pairs.a, pairs.b]), return_inverse=True)
        batches = decoded_batches(pairs.images, used.tolist(), self.size, self.batch_size)
        embedded = embed_images(embed, batches, self.flip)
        in_pair_order_2ND = embedded.unit_ND[row.reshape(2, -1).T.ravel()].astype(np.float64)
        scores = np.einsum("nd,nd->n", in_pair_order_2ND[0::2], in_pair_order_2ND[1::2])
        curve = roc(scores, pairs.is_same)
        return VerificationResult(
            name=self.name,
            pairs=pairs,
            scores=scores,
            accuracy=pair_accuracy(in_pair_order_2ND, pairs.is_same, fold_ids=pairs.fold),
            curve=curve,
            points=tuple(operating_point(curve, far) for far in self.fars),
            mean_norm=float(embedded.norm_N.mean()),
            num_images=len(used),
            flip=self.flip,
        )


def open_protocol(spec: str, size: int = 112, flip: bool = True, batch_size: int = 128) -> Verification:
    """Open a verification protocol from ``NAME=PATH`` or PATH.

    PATH is a folder with LFW's pairs.txt and images, such a .txt, a .csv of pairs, an insightface .bin, or
    ``synthetic:pairs=2000,seed=0,folds=10,nuisance=1``. For lists of images that lie elsewhere:
    PATH?root=FOLDER.

    Args:
        spec: as above; without NAME it is called after its file or folder.
        size: side of the images that the network takes, in pixels.
        flip: add the embedding of the mirrored image.
        batch_size: images in one forward pass.

    Raises:
        ValueError: nothing there, not a protocol, or damaged; the sentence says what to do.
    """
    named = re.fullmatch(r"([\w.-]+)=(.+)", spec)
    name, path = named.groups() if named else ("", spec)
    if path.startswith("synthetic:"):
        return Verification(name or "synthetic", _open_synthetic(path, size), size, flip, batch_size)
    pairs = _open_files(path)
    return Verification(name or Path(path.partition("?")[0]).stem, pairs, size, flip, batch_size)


def _open_files(spec: str) -> Pairs:
    text, _, query = spec.partition("?")
    options = dict(parse_qsl(query))
    if set(options) - {"root"} or (query and not options):
        raise ValueError(f"'{spec}': unknown option '{query}'; the one option is root, as PATH?root=FOLDER")
    root = Path(options["root"]) if "root" in options else None
    path = Path(text)
    if path.is_dir():
        if not (path / "pairs.txt").is_file():
            raise ValueError(
                f"'{path}' has no pairs.txt; draw pairs from a folder of identities with "
                f"'facescale pairs {path}', then evaluate on the CSV that it writes"
            )
        return read_lfw(path / "pairs.txt", root)
    if not path.is_file():
        raise ValueError(
            f"there is no protocol '{path}'; give a folder with pairs.txt, a .csv or .bin of pairs, "
            "or synthetic:pairs=2000"
        )
    readers = {".txt": read_lfw, ".csv": read_csv}
    if path.suffix in readers:
        return readers[path.suffix](path, root)
    if path.suffix != ".bin" or root:
        raise ValueError(
            f"'{spec}' is no pair protocol; give a .txt in LFW's format or a .csv (either with ?root=FOLDER "
            "if need be), or a .bin"
        )
    return read_bin(path)


def _open_synthetic(spec: str, size: int) -> Pairs:
    kinds = {"pairs": int, "seed": int, "folds": int, "nuisance": float}
    values: dict[str, Any] = {"pairs": 2000}
    for item in spec.partition(":")[2].split(","):
        key, _, text = item.partition("=")
        try:
            values[key] = kinds[key](text)
        except (KeyError, ValueError):
            raise ValueError(
                f"'{spec}': cannot read '{item}'{nearest(key, kinds)}; write synthetic:pairs=2000 "
                "and, if need be, seed=0, folds=10, nuisance=1, parted by commas"
            ) from None
    num_pairs, num_folds = values.pop("pairs"), values.pop("folds", 10)
    drawn = synthetic_pairs(num_pairs, num_folds=num_folds, size=size, **values)
    return Pairs(
        spec, ReaderImages(drawn.reader, keep=True), drawn.first, drawn.second, drawn.is_same, drawn.fold
    )
