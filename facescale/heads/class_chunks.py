"""Class centres of a step, one chunk of classes after the other."""

from collections.abc import Iterator

import torch
from torch import Tensor

from facescale.centres.layout import Rows, count
from facescale.centres.row_block import RowBlock
from facescale.centres.store import CentreStore
from facescale.ops import to_device

# G batch of all processes, R rows of a chunk, D embedding size


class ClassChunks:
    """Reads the rows of all or of some classes of this process in chunks.

    Args:
        store: the class centres.
        size: classes of a chunk.
    """

    def __init__(self, store: CentreStore, size: int) -> None:
        self._store, self.size = store, size

    def open(self, classes: Tensor | None, expected: Tensor | None) -> tuple[Tensor | None, RowBlock | None]:
        """Open the rows of ascending classes for the whole step.

        Args:
            classes: local classes, in host memory; None is all.
            expected: classes that were probably fetched ahead for this step; None is not known.

        Returns:
            The classes in the order of their rows, and the rows where they are staged.
        """
        if classes is None:
            return None, None
        store = self._store
        expected_rows = None if expected is None else store.rows_of(expected)
        order, block = store.gather(store.rows_of(classes), expected_rows)
        per_id = store.rows_per_id
        return order if per_id == 1 else order[::per_id] // per_id, block

    def read(
        self, classes: Tensor | None, block: RowBlock | None, only_rows: bool, unread: bool = False
    ) -> Iterator[tuple[int, Rows, RowBlock]]:
        """Chunks as (position of the first class, rows, their block).

        Args:
            classes: as ``open`` returned them.
            block: see there.
            only_rows: leave out what only an update needs.
            unread: give empty blocks, where the values are not needed.
        """
        store, per_id = self._store, self._store.rows_per_id
        pieces = list(self._pieces(classes))
        for (first, here), following in zip(pieces, [*pieces[1:], None], strict=True):
            start = first * per_id
            if block:
                part = block.part(start, start + count(here))
            else:
                part = RowBlock({}) if unread else store.open(here, only_rows)
            if classes is None and following:
                store.prefetch(following[1])
            yield first, here, part

    def rows(self, classes: Tensor | None, block: RowBlock | None) -> Iterator[tuple[int, Tensor]]:
        """Chunks as (position of the first class, rows (R, D) in float32); arguments as for ``read``."""
        return ((first, part.rows_RD) for first, _, part in self.read(classes, block, only_rows=True))

    def _pieces(self, classes: Tensor | None) -> Iterator[tuple[int, Rows]]:
        """(position of the first class, rows) of one chunk after the other."""
        store, size = self._store, self.size * self._store.rows_per_id
        rows = None if classes is None else store.rows_of(classes)
        if rows is not None and not store.staged:
            (rows,) = to_device(store.dist.device, rows)
        total = store.num_rows if rows is None else len(rows)
        for start in range(0, total, size):
            here = slice(start, min(start + size, total))
            yield start // store.rows_per_id, here if rows is None else rows[here]


def places_in(classes: Tensor, class_G: Tensor) -> Tensor:
    """Position of each class of ``class_G`` in ``classes`` (any order), -1 where it is not among them.

    Both are in host memory.
    """
    order = None
    if (classes[1:] < classes[:-1]).any():  # rows that were staged come in another order
        classes, order = classes.sort()
    place = torch.searchsorted(classes, class_G).clamp(max=len(classes) - 1)
    found = place if order is None else order[place]
    return torch.where(classes[place] == class_G, found, -1)
