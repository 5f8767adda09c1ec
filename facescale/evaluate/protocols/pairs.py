"""What a verification protocol is: a list of images, and pairs of them in folds."""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from facescale.arrays import BoolArray, IntArray
from facescale.data.images import Images
from facescale.evaluate.fold_rules import contiguous_folds
from facescale.evaluate.protocols.subset import first_pairs, part_note


@dataclass(frozen=True)
class Pairs:
    """A verification protocol. Every image is listed once, however many pairs it is in.

    Attributes:
        source: where it was read from, for messages.
        images: the images.
        a: int64 (N,), index of the first image of each pair.
        b: int64 (N,), index of the second.
        is_same: bool (N,), True where both show one person (a genuine pair).
        fold: int64 (N,), fold of each pair.
        remarks: what a reader of the figures should know of the list.

    Raises:
        ValueError: columns that differ in length, an index without image, one kind of pairs or one fold only.
    """

    source: str
    images: Images = field(repr=False)
    a: IntArray
    b: IntArray
    is_same: BoolArray
    fold: IntArray
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lengths = {len(column) for column in (self.a, self.b, self.is_same, self.fold)}
        if len(lengths) != 1:
            raise ValueError(
                f"{self.source}: columns a, b, is_same and fold differ in length: {sorted(lengths)}"
            )
        if not 0 < self.num_genuine < len(self):
            raise ValueError(
                f"{self.source}: {self.num_genuine} of {len(self)} pairs are genuine; "
                "verification needs genuine and impostor pairs"
            )
        indices = np.concatenate([self.a, self.b])
        if indices.min() < 0 or indices.max() >= len(self.images):
            raise ValueError(
                f"{self.source}: pairs refer to images {indices.min()} to {indices.max()}, "
                f"but there are {len(self.images)}"
            )
        if len(np.unique(self.fold)) < 2:
            raise ValueError(f"{self.source}: all pairs are in one fold; accuracy needs at least two")

    def __len__(self) -> int:
        return len(self.is_same)

    @property
    def num_genuine(self) -> int:
        """Number of pairs of one person."""
        return int(np.sum(self.is_same))

    def limited(self, limit: int | None) -> "Pairs":
        """The first pairs of each kind in every fold, ``limit`` in all; all pairs without a limit.

        Raises:
            ValueError: so few pairs that only one kind or one fold is left.
        """
        if limit is None or limit >= len(self):
            return self
        kept = first_pairs(self.is_same, self.fold, limit)
        note = part_note(limit, len(self), "pairs", "the first of each kind in every fold")
        columns = {name: getattr(self, name)[kept] for name in ("a", "b", "is_same", "fold")}
        return replace(self, **columns, remarks=self.remarks + note)


def stratified_folds(is_same: BoolArray, num_folds: int = 10) -> IntArray:
    """Fold of each pair (N,): genuine and impostor pairs are split separately, in file order.

    So every fold has the same share of both kinds, whether the list is sorted or not. A list too short for
    ``num_folds`` gets as many folds as its rarer kind has pairs.

    Raises:
        ValueError: fewer than two pairs of a kind.
    """
    counts = Counter(is_same.tolist())
    rarer = min(counts[True], counts[False])
    if rarer < 2:
        raise ValueError(
            f"{counts[True]} genuine and {counts[False]} impostor pairs; folds need at least two of each"
        )
    fold = np.empty(len(is_same), np.int64)
    for kind in (True, False):
        fold[is_same == kind] = contiguous_folds(counts[kind], min(num_folds, rarer))
    return fold
