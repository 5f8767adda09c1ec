"""Search of a large gallery: short codes make a shortlist, the templates themselves decide.

The index is made from the gallery and stands beside it. People who changed since are searched exactly until
it is made again, so that adding and removing cost nothing.
"""

import threading

import numpy as np

from facescale.arrays import BoolArray, IntArray
from facescale.gallery.codes import Scan
from facescale.gallery.gallery import Embeddings, Gallery
from facescale.gallery.index_file import path_of, read_index
from facescale.gallery.search import Match, top_places

# Q queries, P people, d embedding size, S shortlisted, C candidates

BATCH = 64  # queries from which all are compared with everybody
_SHORTLIST = 1000  # whom the codes propose: of a million, all nearest are among them, 0.9993 among 500
_SPARE = 8  # compared in float32 beyond those wanted: fp16 templates may swap neighbours
_QUERIES = 256  # compared with everybody at once
_BLOCK = 1 << 15  # templates widened to float32 at once
_ADVICE = "make it again with: facescale gallery index"
_STALE = 1000  # changes that are searched exactly, in float32; a 400th of the gallery, if that is more


class GalleryIndex:
    """People of a gallery, searched by their codes.

    Cosines and order are those of the exact search among the people that are shortlisted; queries in batches
    are compared with everybody.

    Args:
        gallery: whose index file is there.

    Raises:
        ValueError: faiss is missing; no index, a damaged one, or one of another gallery or state.
    """

    def __init__(self, gallery: Gallery) -> None:
        path = path_of(gallery.path)
        self._gallery, self._file = gallery, read_index(path)
        if (self._file.fingerprint, self._file.row_PD.shape[1]) != (
            gallery.fingerprint,
            gallery.embedding_size,
        ):
            raise ValueError(f"the index '{path}' is not one of the gallery '{gallery.path}'; {_ADVICE}")
        self._person_P = np.array(self._file.person_P)
        self._seen = self._file.state
        self._changed = np.empty(0, np.int64)
        self._new_numbers, _, self._new_templates = gallery.templates_of(())
        self._lock = threading.Lock()
        if not self.follow():
            raise ValueError(f"the index '{path}' is of another state of the gallery; {_ADVICE}")
        self._scan = Scan(self._file.code_PM, self._file.centroid)

    def __len__(self) -> int:
        return len(self._person_P)

    def search(self, query_QD: Embeddings, top: int = 5) -> list[list[Match]]:
        """The ``top`` people of highest cosine for each face, best first, as of the last `follow`.

        Raises:
            ValueError: embeddings of another size.
        """
        if query_QD.shape[1] != self._gallery.embedding_size:
            raise ValueError(
                f"faces have {query_QD.shape[1]}-d embeddings and the gallery "
                f"{self._gallery.embedding_size}-d ones"
            )
        with self._lock:
            changed, numbers, templates = self._changed, self._new_numbers, self._new_templates
        found = self._all(query_QD, top, changed) if len(query_QD) >= BATCH else None
        matches = []
        for place, query_D in enumerate(query_QD):
            near = self._near(query_D, top, changed) if found is None else found[place]
            new = numbers[np.argsort(-(templates @ query_D), kind="stable")[: top + _SPARE]]
            matches.append(self._decided(query_D, np.union1d(near, new), top))
        return matches

    def follow(self) -> bool:
        """Learn what changed in the gallery since the last look.

        Returns:
            Whether the index is still of use; not after many changes, or for another copy of the gallery.
        """
        with self._lock:
            since = self._gallery.changed_since(self._file.state)
            if since is None or len(since[1]) > max(_STALE, len(self._person_P) // 400):
                return False
            if since[0] != self._seen:
                self._new_numbers, _, self._new_templates = self._gallery.templates_of(sorted(since[1]))
                self._changed = np.array(sorted(since[1]), np.int64)
                self._seen = since[0]
            return True

    def _near(self, query_D: Embeddings, top: int, changed: IntArray) -> IntArray:
        """Numbers of the people who are nearest by their fp16 templates, of those whom the codes propose."""
        size = max(_SHORTLIST, 4 * top) + min(len(changed), _SHORTLIST)
        place_S = np.sort(self._scan.shortlist(query_D[None], size)[0])
        if len(changed):
            place_S = place_S[~np.isin(self._person_P[place_S], changed)]
        cosine_S = self._file.row_PD[place_S].astype(np.float32) @ query_D
        best = np.argsort(-cosine_S, kind="stable")[: top + _SPARE]
        found: IntArray = self._person_P[place_S[best]]
        return found

    def _all(self, query_QD: Embeddings, top: int, changed: IntArray) -> list[IntArray]:
        """Numbers of the people who are nearest by their fp16 templates, of everybody."""
        hidden_P = np.isin(self._person_P, changed)

        def block(start: int) -> tuple[Embeddings, BoolArray]:
            some = slice(start, start + _BLOCK)
            return self._file.row_PD[some].astype(np.float32), hidden_P[some]

        found: list[IntArray] = []
        for start in range(0, len(query_QD), _QUERIES):
            blocks = map(block, range(0, len(hidden_P), _BLOCK))
            place_QK, _ = top_places(query_QD[start : start + _QUERIES], blocks, top + _SPARE)
            found += [self._person_P[place_K[~hidden_P[place_K]]] for place_K in place_QK]
        return found

    def _decided(self, query_D: Embeddings, candidates: IntArray, top: int) -> list[Match]:
        """The best of some people, by the templates of the gallery."""
        _, names, template_CD = self._gallery.templates_of(candidates.tolist())
        cosine_C = template_CD @ query_D
        best = np.argsort(-cosine_C, kind="stable")[:top]
        return [Match(names[place], float(cosine_C[place])) for place in best.tolist()]
