"""The highest of very many scores, which come in blocks: of all of them, and of each row."""

import numpy as np

from facescale.arrays import FloatArray, IntArray

_SPARE = 1 << 20  # scores that may wait before the lower ones are dropped


class Highest:
    """The ``size`` highest of many scores, which come in pieces, each perhaps with a tag.

    Attributes:
        bound: scores up to here cannot be among them.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._pieces: list[FloatArray] = []
        self._tags: list[IntArray] = []
        self._count = 0
        self.bound = np.float32(-2)

    def add(self, scores: FloatArray, tags: IntArray | None = None) -> None:
        """Take scores above ``bound``; all calls have tags or none has."""
        self._pieces.append(scores)
        if tags is not None:
            self._tags.append(tags)
        self._count += len(scores)
        if self._count > 2 * self._size + _SPARE:
            self._cut()

    def ranked(self) -> FloatArray:
        """The highest scores, descending."""
        self._cut()
        return np.sort(self._pieces[0])[::-1]

    def ranked_with_tags(self) -> tuple[FloatArray, IntArray]:
        """The highest scores, descending, and the tag of each."""
        self._cut()
        tags = self._tags[0] if self._tags else np.empty(0, np.int64)
        order = np.argsort(-self._pieces[0], kind="stable")
        return self._pieces[0][order], tags[order]

    def _cut(self) -> None:
        scores = np.concatenate([*self._pieces, np.empty(0, np.float32)])
        tags = np.concatenate(self._tags) if self._tags else None
        if len(scores) > self._size:
            kept = np.argpartition(scores, len(scores) - self._size)[-self._size :]
            scores = scores[kept]
            tags = None if tags is None else tags[kept]
            # Equal scores at the bound may go: enough of them are kept.
            self.bound = scores.min()
        self._pieces, self._count = [scores], len(scores)
        self._tags = [] if tags is None else [tags]


class RowHighest:
    """The ``size`` highest scores of each of ``rows`` rows; the columns come in blocks.

    Attributes:
        bound: (rows,) scores up to here cannot be among the highest of their row.
    """

    def __init__(self, rows: int, size: int) -> None:
        self._size = size
        self._row: list[IntArray] = []
        self._score: list[FloatArray] = []
        self._count = 0
        self.bound = np.full(rows, -2, np.float32)

    def add(self, row: IntArray, score: FloatArray) -> None:
        """Take scores (n,) of the rows (n,), all above ``bound``."""
        self._row.append(row)
        self._score.append(score)
        self._count += len(row)
        if self._count > 2 * self._size * len(self.bound) + _SPARE:
            self._cut()

    def table(self) -> FloatArray:
        """The highest scores of each row, float32 (rows, size), descending; -2 where there are fewer."""
        self._cut()
        table = np.full((len(self.bound), self._size), -2, np.float32)
        table[self._row[0], _place_in(self._row[0])] = self._score[0]
        return table

    def _cut(self) -> None:
        row = np.concatenate([*self._row, np.empty(0, np.int64)])
        score = np.concatenate([*self._score, np.empty(0, np.float32)])
        order = np.lexsort((-score, row))
        row, score = row[order], score[order]
        place = _place_in(row)
        last = place == self._size - 1
        self.bound[row[last]] = score[last]
        kept = place < self._size
        self._row, self._score, self._count = [row[kept]], [score[kept]], int(kept.sum())


def _place_in(row: IntArray) -> IntArray:
    """Place of each entry among those of its row; ``row`` is ascending."""
    return np.arange(len(row)) - np.searchsorted(row, row)
