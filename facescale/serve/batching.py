"""One call of the network for all the requests that wait for it."""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facescale.arrays import Pixels
from facescale.gallery.gallery import Embeddings

# N faces of all that wait, S pixels a side, D embedding size

_MOST = 32  # faces of a call; more take longer and gain nothing


@dataclass(eq=False)
class _Waiting:
    """The faces of one request, and what became of them."""

    faces_NSS3: Pixels
    embedding_ND: Embeddings | None = None
    error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.embedding_ND is not None or self.error is not None


class SharedCalls:
    """Embeds from many threads, one call at a time; a call takes along the faces of all who wait.

    A call for one face costs a large part of a call for eight, so under load the calls grow and the time of
    each request shrinks. Nobody waits for others to come: a request alone is embedded at once.

    Args:
        embed: uint8 (N, S, S, 3) -> (N, D); only one thread calls it at a time.
        most: faces of a call; a request of more is not divided.
    """

    def __init__(self, embed: Callable[[Pixels], Embeddings], most: int = _MOST) -> None:
        self._embed, self._most = embed, most
        self._queue: list[_Waiting] = []
        self._queueing, self._computing = threading.Lock(), threading.Lock()

    def __call__(self, faces_NSS3: Pixels) -> Embeddings:
        """The embeddings (N, D) of one request; raises what ``embed`` raises for these faces alone."""
        mine = _Waiting(faces_NSS3)
        with self._queueing:
            self._queue.append(mine)
        while not mine.done:
            with self._computing:
                if not mine.done:  # another thread may have taken it along
                    self._answer(self._next())
        if mine.error is not None:
            raise mine.error
        assert mine.embedding_ND is not None
        return mine.embedding_ND

    def _next(self) -> list[_Waiting]:
        """Take the requests that came first from the queue."""
        with self._queueing:
            count, total = 0, 0
            for one in self._queue:
                total += len(one.faces_NSS3)
                same = one.faces_NSS3.shape[1:] == self._queue[0].faces_NSS3.shape[1:]
                if count and (total > self._most or not same):
                    break
                count += 1
            taken, self._queue = self._queue[:count], self._queue[count:]
        return taken

    def _answer(self, taken: list[_Waiting]) -> None:
        try:
            rows_ND = self._embed(np.concatenate([one.faces_NSS3 for one in taken]))
        except BaseException as error:  # kept for the thread whose request it is
            for one in taken:
                if len(taken) == 1 or not isinstance(error, Exception):
                    one.error = error
                else:  # one that cannot be embedded fails alone
                    self._answer([one])
            return
        start = 0
        for one in taken:
            one.embedding_ND = rows_ND[start : start + len(one.faces_NSS3)]
            start += len(one.faces_NSS3)
