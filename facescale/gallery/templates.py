"""Templates out of the database of a gallery: one unit vector a person, few of them in memory at once."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager

import numpy as np
import numpy.typing as npt

from facescale.arrays import IntArray
from facescale.gallery.database import State, shown, state_of

# P people, d embedding size

Embeddings = npt.NDArray[np.float32]
Unpack = Callable[[bytes], Embeddings]
_LAST = (1 << 63) - 1  # highest number of a person


def templates_between(
    db: sqlite3.Connection, unpacked: Unpack, embedding_size: int, after: int = -1, last: int = _LAST
) -> tuple[IntArray, Embeddings]:
    """Numbers (P,) and templates (P, d) of the people above number ``after``, up to ``last``.

    A template is the mean of the person's embeddings weighted by quality, scaled to length 1.
    """
    span = (after, last)
    (count,) = db.execute(
        "SELECT count(DISTINCT person) FROM faces WHERE person > ? AND person <= ?", span
    ).fetchone()
    number_P = np.empty(count, np.int64)
    sum_PD = np.zeros((count, embedding_size), np.float32)
    place = -1
    for person, quality, packed in db.execute(
        "SELECT person, quality, embedding FROM faces WHERE person > ? AND person <= ? ORDER BY person, id",
        span,
    ):
        if place < 0 or person != number_P[place]:
            place += 1
            number_P[place] = person
        sum_PD[place] += quality * unpacked(packed)
    return number_P, _unit(sum_PD)


def templates_by_number(
    db: sqlite3.Connection, unpacked: Unpack, embedding_size: int, numbers: Iterable[int]
) -> tuple[IntArray, list[str], Embeddings]:
    """Numbers (P,), names and templates (P, d) of those of some people who are enrolled, in their order."""
    found: list[int] = []
    names: list[str] = []
    sums: list[Embeddings] = []
    for number in numbers:
        rows = db.execute(
            "SELECT name, quality, embedding FROM faces JOIN people ON people.id = faces.person"
            " WHERE person = ? ORDER BY faces.id",
            (number,),
        ).fetchall()
        if rows:
            sum_D = np.zeros(embedding_size, np.float32)
            for _, quality, packed in rows:
                sum_D += quality * unpacked(packed)
            found.append(number)
            names.append(shown(rows[0][0]))
            sums.append(sum_D)
    return np.array(found, np.int64), names, _unit(np.reshape(sums, (-1, embedding_size)).astype(np.float32))


def _unit(sum_PD: Embeddings) -> Embeddings:
    norm_P1 = np.linalg.norm(sum_PD, axis=1, keepdims=True)
    unit_PD: Embeddings = sum_PD / np.maximum(norm_P1, np.finfo(np.float32).tiny)
    return unit_PD


class TemplateBlocks:
    """All templates of one state of a gallery; a context, within which nothing that is read changes.

    Args:
        reading: opens the database.
        unpacked: an embedding from its bytes.
        embedding_size: d.
        size: people of a block.

    Attributes:
        state: of the gallery; set inside the context.
        num_people: with a photo.
    """

    state: State
    num_people: int

    def __init__(
        self,
        reading: Callable[[], AbstractContextManager[sqlite3.Connection]],
        unpacked: Unpack,
        embedding_size: int,
        size: int,
    ) -> None:
        self._context, self._unpacked = reading(), unpacked
        self._embedding_size, self._size = embedding_size, size

    def __enter__(self) -> "TemplateBlocks":
        self._db = self._context.__enter__()
        self._db.execute("BEGIN")
        state = state_of(self._db)
        assert state is not None
        self.state = state
        (self.num_people,) = self._db.execute("SELECT count(DISTINCT person) FROM faces").fetchone()
        return self

    def __exit__(self, *error: object) -> None:
        self._context.__exit__(*error)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[tuple[IntArray, Embeddings]]:
        """Numbers and templates, by number."""
        after = -1
        while True:
            (last,) = self._db.execute(
                "SELECT max(person) FROM"
                " (SELECT DISTINCT person FROM faces WHERE person > ? ORDER BY person LIMIT ?)",
                (after, self._size),
            ).fetchone()
            if last is None:
                return
            yield templates_between(self._db, self._unpacked, self._embedding_size, after, last)
            after = last
